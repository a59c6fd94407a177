"""The whole chain against the emulator: honest ones pass under faults, liars are convicted."""

from __future__ import annotations

from pathlib import Path

import pytest

import tigerbeetle_emulator
from tests.resilience.recorded import Recorded, Workload
from tigerbeetle_emulator.server.faults import Faults

ENDLESS_S = 3600


def recorded(
    faults: Faults, runs: Path, *, operations: int, unknown: int = 0, **options: float
) -> Recorded:
    """A load that ends when so much has happened, however long that takes."""
    with tigerbeetle_emulator.run(cluster=7, faults=faults) as cluster:
        workload = Workload(cluster.address, 7, runs, run_time=ENDLESS_S, **options)
        try:
            return workload.record(operations, unknown)
        finally:
            workload.close()


def test_an_honest_emulator_that_comes_and_goes_is_passed(tmp_path: Path) -> None:
    faults = Faults(drop_replies=0.03, stop_every=2.0, stop_for=0.3, latency_jitter=0.01)
    found = recorded(faults, tmp_path, operations=500, unknown=10, deadline_s=0.25)
    assert found.failed == {}
    assert found.exit_code == 0
    assert found.acknowledged > 100
    unknown = [o for o in found.history.operations if o.outcome == "unknown"]
    assert len(unknown) > 5  # else nothing was resolved


@pytest.mark.parametrize(
    ("lie", "rate", "convicted_by"),
    [
        ("lose_commits", 0.05, {"acknowledged", "answers", "reads"}),
        ("double_transfers", 0.05, {"balances", "reads"}),
        ("stale_reads", 0.5, {"reads", "posted never decreases"}),
    ],
)
def test_an_emulator_that_lies_is_convicted(
    lie: str, rate: float, convicted_by: set[str], tmp_path: Path
) -> None:
    found = recorded(Faults(**{lie: rate}), tmp_path, operations=800)  # type: ignore[arg-type]
    assert found.verdict == "failed"
    assert convicted_by <= found.failed.keys(), found.failed


def test_a_cluster_that_went_away_leaves_a_history_that_is_never_passed(tmp_path: Path) -> None:
    with tigerbeetle_emulator.run(cluster=7) as cluster:
        workload = Workload(cluster.address, 7, tmp_path, run_time=ENDLESS_S)
        try:
            workload.kill()
            found = workload.read()
        finally:
            workload.close()
    assert found.verdict == "unknown"
    assert "cut off" in found.failed["history complete"]
