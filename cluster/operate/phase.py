"""One phase of an operation: a pyinfra task, run on every host of an inventory, shown as it runs.

An operation such as a restore has several phases, with decisions in between. A phase that fails on
one host stops on all hosts, and the operation then undoes the phases before it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import click

from cluster import REPOSITORY
from cluster.command import by_inventory
from cluster.config import check
from cluster.interruption import say, whole
from cluster.operate import last_word
from cluster.refusal import Failed, Interrupted

#: Packing or unpacking is at the disk's speed: hours only for terabytes.
TIMEOUT_S = 6 * 3600.0
#: A phase that is interrupted first ends what may not be cut in two: a replica's restart.
_END_TIMEOUT_S = 120.0
_TERM_TIMEOUT_S = 10.0


def run(
    inventory: str,
    task: str,
    *,
    data: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Run ``task`` (a deploy file, or ``tasks.MODULE.NAME``); ``data`` becomes host data.

    ``environ`` is the environment, if not this process's own; ``quiet`` shows what pyinfra says
    only when it fails. Raises Failed, also when it takes longer than TIMEOUT_S.
    """
    given = [f"--data={key}={value}" for key, value in (data or {}).items()]
    pyinfra = [sys.executable, "-m", "pyinfra", "--yes", "--fail-percent=0"]
    with subprocess.Popen(
        [*pyinfra, *given, inventory, task],
        cwd=REPOSITORY,
        env=environ,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        start_new_session=True,  # a terminal's Ctrl-C is answered here, for all
    ) as process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{task}: no end within {TIMEOUT_S:g} s") from None
        finally:
            end(process)
    if process.returncode != 0:
        if said:
            say(said.rstrip())
        raise Failed(f"{task}: failed, see above")


def end(process: subprocess.Popen[str]) -> None:
    """End a program that leads a session of its own, and everything in it; at once if it has."""
    with whole("ending the step that is under way"):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_TIMEOUT_S)
        until = time.monotonic() + _TERM_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(process.pid, signal.SIGTERM)
                process.poll()
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@click.command()
@by_inventory
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Host data, for this run alone.")
@click.option("--hosts", help="An inventory of other hosts that serve this cluster.")
@click.argument("task", default="deploy.py")
def main(file: str, data: tuple[str, ...], hosts: str | None, task: str) -> None:
    """Run TASK with pyinfra, in this program; by default, deploy.

    The inventory is checked first: a bad one ends in one line, before anything is started.
    """
    deployment = check.say(file)
    with last_word.said(deployment) if hosts is None else contextlib.nullcontext():
        _pyinfra(["--yes", *(f"--data={value}" for value in data), hosts or file, task])


def _pyinfra(arguments: list[str]) -> None:
    """As its own ``main``, which would answer Ctrl-C by success."""
    # Here: it takes half a second, and patches Python.
    import pyinfra
    from pyinfra.api.output import set_echo, set_formatter
    from pyinfra_cli.cli import cli  # type: ignore[import-untyped]

    pyinfra.is_cli = True
    set_formatter(click.style)
    set_echo(click.echo)
    sys.path.append(".")
    try:
        cli(arguments, prog_name="pyinfra", standalone_mode=False)
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:
            raise KeyboardInterrupt from None
        raise
