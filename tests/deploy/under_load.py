"""A workload beside a command: what its clients saw, operation by operation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from loadtests.run import history
from loadtests.run.history import Operation
from tests.clusters import Sandbox

#: Longer than any outage here: no answer within it would be one that was lost.
DEADLINE_S = 1000
_BEGIN_TIMEOUT_S = 600
_END_TIMEOUT_S = 2000


@dataclass
class Seen:
    """What a workload recorded; complete once its context has ended."""

    runs: Path
    operations: tuple[Operation, ...] = ()
    checked: str = ""  # what the checker printed
    verdict: int = -1  # its exit code

    @property
    def unanswered(self) -> list[Operation]:
        """Operations whose outcome no client knows."""
        return [operation for operation in self.operations if operation.outcome == "unknown"]

    @property
    def longest_gap_s(self) -> float:
        """The longest time without an acknowledgement, on any connection."""
        ends = sorted(o.completed for o in self.operations if o.completed is not None)
        return max((later - earlier) / 1e9 for earlier, later in pairwise(ends))


@contextmanager
def workload(made: Sandbox, runs: Path) -> Iterator[Seen]:
    """Money moves, and is recorded, from before the block until after it; then it is checked."""
    environ = made.environ | {"LOADTESTS_RUNS": str(runs)}
    command = [sys.executable, "-m", "cluster", "workload", "--run-time", "5000s"]
    seen, log = Seen(runs), runs / "workload.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--deadline-s", str(DEADLINE_S), "--run-id", "run"],
            env=environ,
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        recorded = runs / "run" / history.FILE
        wait_until(
            lambda: (recorded.exists() and recorded.stat().st_size > 10_000, log.read_text()),
            what="the workload to be under way",
            timeout_s=_BEGIN_TIMEOUT_S,
        )
        yield seen
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(_END_TIMEOUT_S) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()
    seen.operations = tuple(history.read(runs / "run").operations)
    checker = subprocess.run(
        [sys.executable, "-m", "cluster", "check", "--run", str(runs / "run")],
        env=environ,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_END_TIMEOUT_S,
    )
    seen.checked, seen.verdict = checker.stdout + checker.stderr, checker.returncode
