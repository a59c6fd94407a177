"""The last word of a command that is interrupted, or fails: what runs, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cluster.config.deployment import Deployment
from cluster.interruption import whole
from cluster.refusal import Failed, Interrupted
from cluster.runtimes import of

_RUNS = ("RUNNING", "STARTING")


class AsTold(Failed):
    """A failure that says itself how things are, and what to do: only who runs is to be added."""


@contextmanager
def said(
    deployment: Deployment, so: str = "", *, fix: str = "", is_up: bool = True
) -> Iterator[None]:
    """End in one line: what happened, ``so``, and the replicas that do not run, with the ``fix``.

    ``is_up`` says that they should run. What was only refused has touched none of them.
    """
    try:
        yield
    except (KeyboardInterrupt, click.Abort, Failed) as error:
        with whole("looking at the replicas"):
            is_told = isinstance(error, AsTold)
            line = str(error) if isinstance(error, Failed) else "interrupted"
            line += "" if is_told else so
            if is_up:
                how, what_now = _replicas(deployment, fix)
                line += f"; {how}" if is_told or not what_now else f"; {how}. Fix: {what_now}"
        raise (Failed if isinstance(error, Failed) else Interrupted)(line) from None


def _replicas(deployment: Deployment, fix: str) -> tuple[str, str]:
    """Which run, and what to do where some do not."""
    states = of(deployment).states() or {}
    indexes = [replica.index for replica in deployment.cluster.replicas]
    away = [i for i in states if not states[i].is_known]
    running = [i for i in states if states[i].state in _RUNS]
    down = [i for i in indexes if i not in (*away, *running)]
    if not (down or away):
        return "every replica runs", ""
    told = [f"not running: replica {_listed(down)}"] if down else []
    told += [f"not seen: replica {_listed(away)}, whose server does not answer"] if away else []
    named = "no replica runs" if down == indexes else "; ".join(told)
    return named, fix or of(deployment).up


def _listed(indexes: list[int]) -> str:
    return ", ".join(map(str, indexes))
