"""Judge a recorded history, as ``make workload`` does after it has recorded one."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.refusal import Refusal
from loadtests.proof.checker import check
from loadtests.proof.proof import verdict_of
from loadtests.run import history, runs
from loadtests.run.exit_codes import EXIT_CODES


@click.command()
@click.option("--run", "name", help="Run id or directory; default: the newest recorded one.")
def main(name: str | None) -> int:
    """Judge a recorded history.

    Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown.
    """
    recorded = history.read(find(name))
    checks = check(recorded)
    for one in checks:
        print(f"  {one.verdict:8} {one.name}: {one.detail}")
    verdict = verdict_of(checks)
    print(f"history {verdict}: {len(recorded.operations):,} operations")
    return EXIT_CODES[verdict]


def find(name: str | None) -> Path:
    """The directory of a recorded run, by id or path; without, the newest. Raises Refusal."""
    recorded = [path.parent for path in runs.directory().glob(f"*/{history.FILE}")]
    if name:
        recorded = [
            p for p in (Path(name), runs.directory() / name) if (p / history.FILE).is_file()
        ]
    if not recorded:
        raise Refusal(
            f"run: expected a directory with {history.FILE}, found none for {name or 'any run'} in "
            f"{runs.directory()}. Fix: `make workload` makes one"
        )
    return max(recorded, key=lambda path: (path / history.FILE).stat().st_mtime_ns)
