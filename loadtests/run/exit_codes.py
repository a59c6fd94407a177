"""The exit codes of every program here that judges a run. For CI jobs."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.run.result import Verdict

EXIT_PASSED, EXIT_FAILED, EXIT_USAGE, EXIT_MISSED, EXIT_UNKNOWN = 0, 1, 2, 3, 4

EXIT_CODES: Mapping[Verdict, int] = {
    "passed": EXIT_PASSED,
    "failed": EXIT_FAILED,
    "unknown": EXIT_UNKNOWN,
}
