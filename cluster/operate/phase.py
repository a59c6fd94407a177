"""One phase of an operation: a pyinfra task, run on every host of an inventory, shown as it runs.

An operation such as a restore has several phases, with decisions in between. A phase that fails on
one host stops on all hosts, and the operation then undoes the phases before it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import click

from cluster import REPOSITORY
from cluster.command import by_inventory
from cluster.config import check
from cluster.refusal import Failed

#: Packing or unpacking is at the disk's speed: hours only for terabytes.
TIMEOUT_S = 6 * 3600.0


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
    try:
        done = subprocess.run(
            [*pyinfra, *given, inventory, task],
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{task}: no end within {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        print(done.stdout or "", end="", flush=True)
        raise Failed(f"{task}: failed, see above")


@click.command()
@by_inventory
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Host data, for this run alone.")
@click.option("--hosts", help="An inventory of other hosts that serve this cluster.")
@click.argument("task", default="deploy.py")
def main(file: str, data: tuple[str, ...], hosts: str | None, task: str) -> None:
    """Run TASK with pyinfra, in this program; by default, deploy.

    The inventory is checked first: a bad one ends in one line, before anything is started.
    """
    check.say(file)
    # Here: it takes half a second, and patches Python.
    from pyinfra_cli.main import main as pyinfra  # type: ignore[import-untyped]

    given = [f"--data={value}" for value in data]
    sys.argv = ["pyinfra", "--yes", *given, hosts or file, task]
    pyinfra()
