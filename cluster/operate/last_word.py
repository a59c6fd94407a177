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
            told = str(error) if isinstance(error, Failed) else "interrupted"
            line = f"{told}{so}"
            if is_up:
                line += f"; {_replicas(deployment, fix)}"
        raise (Failed if isinstance(error, Failed) else Interrupted)(line) from None


def _replicas(deployment: Deployment, fix: str) -> str:
    states = of(deployment).states() or {}
    indexes = [replica.index for replica in deployment.cluster.replicas]
    down = [i for i in indexes if i not in states or states[i].state not in _RUNS]
    if not down:
        return "every replica runs"
    named = "no replica runs" if down == indexes else f"not running: replica {_listed(down)}"
    return f"{named}. Fix: {fix or of(deployment).up}"


def _listed(indexes: list[int]) -> str:
    return ", ".join(map(str, indexes))
