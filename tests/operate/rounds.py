"""Backups in a row while a recorded load runs, and what is in them: for every place of replicas.

The load's own history says what was acknowledged when, and how long each client waited; what a set
holds is asked of a scratch cluster of it, through the official client.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import tigerbeetle as tb

from cluster import REPOSITORY
from cluster.config.deployment import Deployment
from cluster.operate.backup import sets, verify
from cluster.tigerbeetle import totals
from cluster.tigerbeetle.waiting import wait_until
from loadtests.run import history
from loadtests.run.history import CREATED, Operation, Transfer

#: ``BACKUP_ROUNDS=10`` for figures.
ROUNDS = int(os.environ.get("BACKUP_ROUNDS", "2"))
_NAME = "under-backups"
_BATCH = 2000
_TIMEOUT_S = 600
#: Lines of the history before the first backup, and between two.
_LINES = 500


@dataclass(frozen=True)
class Load:
    """A load that runs, and where it writes its history."""

    run: Path

    def operations(self) -> tuple[Operation, ...]:
        """All that has ended so far."""
        return history.read(self.run).operations

    def go_on(self) -> None:
        """Wait for some more operations."""
        wanted = self._lines() + _LINES
        wait_until(
            lambda: (self._lines() >= wanted, f"{self._lines()}"),
            what="the load to go on",
            timeout_s=_TIMEOUT_S,
        )

    def _lines(self) -> int:
        file = self.run / history.FILE
        return file.read_bytes().count(b"\n") if file.exists() else 0


@contextmanager
def load(environ: Mapping[str, str], runs: Path) -> Iterator[Load]:
    """``make workload`` for as long as the block lasts; then its whole history is judged."""
    own = {**environ, "LOADTESTS_RUNS": str(runs)}
    words = ["workload", "--run-time=6h", f"--run-id={_NAME}"]
    command = [sys.executable, "-m", "cluster", *words]
    with subprocess.Popen(command, cwd=REPOSITORY, env=own, stdout=subprocess.DEVNULL) as running:
        try:
            made = Load(runs / _NAME)
            made.go_on()
            yield made
            assert running.poll() is None, "the load has ended by itself"
        finally:
            running.terminate()  # it ends properly, within a minute
            try:
                running.wait(_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
    assert running.returncode == 0
    judged = subprocess.run(
        [sys.executable, "-m", "cluster", "check", f"--run={made.run}"],
        cwd=REPOSITORY,
        env=own,
        text=True,
        capture_output=True,
        timeout=_TIMEOUT_S,
    )
    assert judged.returncode == 0, judged.stdout[-3000:] + judged.stderr[-3000:]


def waits(operations: Sequence[Operation]) -> list[tuple[int, float]]:
    """(when it was first asked, seconds until it was answered), of every request of a worker.

    One without an answer is sent again, by the same worker with the same ids: it waits on.
    """
    found, begun = [], dict[tuple[int, object], int]()
    for operation in sorted(operations, key=lambda each: each.invoked):
        key = (operation.worker, operation.transfers or operation.ids)
        first = begun.setdefault(key, operation.invoked)
        if operation.completed is not None and not operation.final:
            found.append((first, (operation.completed - first) / 1e9))
            del begun[key]
    return found


def acknowledged(operations: Sequence[Operation], before: float) -> dict[int, Transfer]:
    """Every transfer of which a client was told before this instant (seconds since 1970)."""
    instant = (before - (time.time() - time.monotonic())) * 1e9
    return {
        one.id: one
        for op in operations
        if op.kind == "create_transfers" and op.completed and op.completed < instant
        for one, status in zip(op.transfers, op.statuses, strict=False)
        if status == CREATED
    }


def missing(deployment: Deployment, wanted: Mapping[int, Transfer]) -> list[int]:
    """Ids of those that are not there, or are other transfers."""
    cluster, ids, found = deployment.cluster, [*wanted], {}
    with tb.ClientSync(cluster_id=cluster.id, replica_addresses=cluster.addresses) as client:
        for begin in range(0, len(ids), _BATCH):
            for each in client.lookup_transfers(ids[begin : begin + _BATCH]):
                found[each.id] = (each.user_data_64, each.ledger, each.code)
    return [i for i, t in wanted.items() if found.get(i) != (t.user_data_64, t.ledger, t.code)]


def prove(
    deployment: Deployment,
    taken: Sequence[Path],
    operations: Sequence[Operation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every set opens, is whole, and has all that was acknowledged before its moment."""
    read = totals.read
    for path in taken:
        moment = sets.read(path).taken_at.timestamp()
        wanted = acknowledged(operations, moment)
        assert wanted, "the load ran before the backup"
        lost: list[int] = []

        def look(scratch: Deployment, wanted: Mapping[int, Transfer] = wanted) -> object:
            lost.extend(missing(scratch, wanted))  # noqa: B023 - called within this round
            print(f"    of {len(wanted):,} acknowledged before, {len(lost)} are missing")  # noqa: B023
            return read(scratch)

        monkeypatch.setattr(totals, "read", look)
        begin = time.monotonic()
        assert verify.verify(deployment, path).wrong == []
        assert lost == []
        print(f"  {path.name}: restored and audited in {time.monotonic() - begin:.0f} s")
    monkeypatch.setattr(totals, "read", read)


def take(
    environ: Mapping[str, str],
    runs: Path,
    backup: Callable[..., Path],
    rounds: int = ROUNDS,
    *,
    with_stop: bool = True,
) -> tuple[list[Path], tuple[Operation, ...]]:
    """So many backups in a row, then one with a stop; what clients waited is printed."""
    taken, spans = [], []
    with load(environ, runs) as running:
        for number in range(rounds + with_stop):
            begin = time.monotonic()
            way = "freeze" if number < rounds else "stop"
            taken.append(backup(f"WAY={way}"))
            running.go_on()
            spans.append((way, begin, time.monotonic()))
    operations = history.read(running.run).operations
    waited = waits(operations)
    print()
    for path, (way, begin, end) in zip(taken, spans, strict=True):
        found = sets.read(path)
        offset = time.time() - time.monotonic()
        at = (found.taken_at.timestamp() - offset) * 1e9
        over = [s for first, s in waited if first <= at + 1e9 and first + s * 1e9 >= at]
        around = [s for first, s in waited if begin * 1e9 <= first <= end * 1e9]
        print(
            f"  {path.name}: {way}, frozen {found.frozen_s} s, stopped {found.stopped_s} s; "
            f"longest wait at that moment {max(over, default=0):.3f} s, of the whole command "
            f"{max(around, default=0):.3f} s; {end - begin:.0f} s altogether"
        )
        assert found.way == way
    return taken, operations
