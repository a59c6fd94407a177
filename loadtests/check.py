"""Judge a recorded history, as ``make workload`` does after it has recorded one."""

from __future__ import annotations

import click

from cluster.command import if_inventory
from loadtests.proof.checker import check
from loadtests.proof.proof import verdict_of
from loadtests.run import chosen, history
from loadtests.run.exit_codes import EXIT_CODES
from loadtests.run.result import read_target


@click.command()
@if_inventory
@click.option("--run", "name", help="Run id or directory; default: the cluster's newest recorded.")
def main(file: str | None, name: str | None) -> int:
    """Judge a recorded history.

    Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown.
    """
    run = chosen.run(name, file, chosen.RECORDED)
    recorded, target = history.read(run), read_target(run)
    checks = check(recorded)
    for one in checks:
        print(f"  {one.verdict:8} {one.name}: {one.detail}")
    verdict = verdict_of(checks)
    whose = f"{target.whose}: " if target else ""
    print(f"history {verdict}: {whose}{len(recorded.operations):,} operations")
    return EXIT_CODES[verdict]
