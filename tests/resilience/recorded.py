"""Runs of the recorded workload, as a program of its own, and what the checker says of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from loadtests.proof.checker import check
from loadtests.proof.proof import verdict_of
from loadtests.run import history
from loadtests.run.history import History
from loadtests.run.result import Check

#: From SIGTERM to the end: holds time out, then everything is read.
SETTLE_TIMEOUT_S = 600
#: For a thousand operations, which take seconds.
RECORD_TIMEOUT_S = 600
#: Of the history's end: a hundred operations or so.
_TAIL_BYTES = 200_000


@dataclass
class Recorded:
    """A finished run."""

    run: Path
    exit_code: int
    history: History
    checks: list[Check]

    @property
    def verdict(self) -> str:
        return verdict_of(self.checks)

    @property
    def failed(self) -> dict[str, str]:
        return {c.name: c.detail for c in self.checks if c.verdict != "passed"}

    @property
    def acknowledged(self) -> int:
        sent = (o for o in self.history.operations if o.kind == "create_transfers")
        return sum(o.statuses.count("created") for o in sent)


class Workload:
    """The running program. ``finish`` ends it, unless it has ended by itself."""

    def __init__(self, addresses: str, cluster_id: int, runs: Path, **options: float) -> None:
        self._runs = runs
        self.run = runs / f"run-{len(list(runs.glob('run-*')))}"
        more = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cluster",
                "workload",
                f"--addresses={addresses}",
                f"--cluster-id={cluster_id}",
                f"--run-id={self.run.name}",
                *more,
            ],
            cwd=REPOSITORY,
            env=os.environ | {"LOADTESTS_RUNS": str(runs)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr
        said = self._process.stderr.readline()
        assert "started" in said, said + self._process.stderr.read()

    def has_answer_since(self, instant: int) -> bool:
        """Whether an operation was invoked after ``instant`` (monotonic ns), and answered."""
        with (self.run / history.FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[1:-1]
        return any(
            line.get("invoked", 0) > instant and line.get("completed")
            for line in map(json.loads, lines)
        )

    def record(self, operations: int, unknown: int = 0) -> Recorded:
        """Let it go on until so much is in its history, so many unanswered; then ``finish``."""

        def observe() -> tuple[bool, str]:
            path = self.run / history.FILE
            text = path.read_bytes() if path.exists() else b""
            counts = text.count(b"\n"), text.count(b'"unknown"')
            assert self._process.poll() is None, "it ended by itself"
            return counts[0] >= operations and counts[1] >= unknown, f"operations: {counts}"

        wait_until(observe, what="its history", timeout_s=RECORD_TIMEOUT_S)
        return self.finish()

    def finish(self) -> Recorded:
        """Tell it to stop, wait for the final reads, check."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = SETTLE_TIMEOUT_S) -> Recorded:
        """Wait for its end, check."""
        _, said = self._process.communicate(timeout=timeout_s)
        assert self._process.returncode in (0, 4), said
        return self.read()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait(60)

    def read(self) -> Recorded:
        """What it has written so far, checked."""
        whole = history.read(self.run)
        return Recorded(self.run, self._process.returncode, whole, check(whole))

    def close(self) -> None:
        """End it, if something went wrong before ``finish``."""
        if self._process.poll() is None:
            self.kill()
