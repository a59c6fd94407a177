"""Check a recorded run: ``python -m loadtests.proof.checker [--run ID]``.

Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loadtests.proof.checker import check
from loadtests.proof.proof import verdict_of
from loadtests.run import history, runs
from loadtests.run.exit_codes import EXIT_CODES, EXIT_USAGE


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.proof.checker", description=__doc__)
    parser.add_argument("--run", help="run id or directory (default: the newest recorded one)")
    wanted = parser.parse_args(arguments).run
    try:
        recorded = history.read(find(wanted))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    checks = check(recorded)
    for one in checks:
        print(f"  {one.verdict:8} {one.name}: {one.detail}")
    verdict = verdict_of(checks)
    print(f"history {verdict}: {len(recorded.operations):,} operations")
    return EXIT_CODES[verdict]


def find(name: str | None) -> Path:
    """The directory of a recorded run, by id or path; without, the newest. FileNotFoundError."""
    recorded = [path.parent for path in runs.directory().glob(f"*/{history.FILE}")]
    if name:
        recorded = [
            p for p in (Path(name), runs.directory() / name) if (p / history.FILE).is_file()
        ]
    if not recorded:
        raise FileNotFoundError(
            f"run: expected a directory with {history.FILE}, found none for {name or 'any run'} in "
            f"{runs.directory()}. Fix: `make workload` makes one"
        )
    return max(recorded, key=lambda path: (path / history.FILE).stat().st_mtime_ns)


if __name__ == "__main__":
    sys.exit(main())
