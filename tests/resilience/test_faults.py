"""Genuine replicas are broken in every way under load, and nothing acknowledged is lost.

``make test`` strikes with a few, once; ``make resilience`` with all, ROUNDS times.
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.runtimes import of
from tests.resilience.conftest import ROUNDS, Ledger
from tests.resilience.faults import DISK_FULL, FAULTS, UNAVAILABILITY, Fault
from tests.resilience.processes import DISK_OF, ProcessWorld
from tests.resilience.strikes import ENDLESS_S, judge_minority, judge_unavailability, strike
from tests.resilience.world import MajorityError

pytestmark = [
    pytest.mark.genuine,
    pytest.mark.slow,
    # A script: the last test judges what the faults before it have left.
    pytest.mark.random_order(disabled=True),
]

#: Enough load for two checkpoints of 960 operations.
CHECKPOINT_OPERATIONS = 2000

#: Fault → what keeps it out of `make test`.
LEAN = {
    "kill the primary": (),
    "kill all": (),
    "cut off the primary": (pytest.mark.long,),
    "damaged wal prepares": (pytest.mark.long,),
}


def chosen(faults: list[Fault]) -> list[Any]:
    """As rows of a test."""
    return [
        pytest.param(fault, id=fault.name, marks=() if ROUNDS else LEAN[fault.name])
        for fault in faults
        if ROUNDS or fault.name in LEAN
    ]


def test_a_fault_refuses_to_take_more_than_a_minority(processes: ProcessWorld) -> None:
    with pytest.raises(MajorityError, match="expected at most 1 of 3"), processes.faulty([0, 1]):
        raise AssertionError("it was let")
    with (
        processes.faulty([0]),
        pytest.raises(MajorityError, match=r"replicas \[0, 2\]"),
        processes.faulty([2]),
    ):
        raise AssertionError("it was let")


@pytest.mark.parametrize("fault", chosen(FAULTS))
def test_a_minority_can_be_lost_and_nothing_acknowledged_with_it(
    processes: ProcessWorld, ledger: Ledger, fault: Fault
) -> None:
    recorded, struck = strike(processes, fault, max(1, ROUNDS))
    ledger.add(recorded, struck)
    judge_minority(recorded, struck)


@pytest.mark.parametrize("fault", chosen(UNAVAILABILITY))
def test_unavailability_acknowledges_nothing_and_loses_nothing(
    processes: ProcessWorld, ledger: Ledger, fault: Fault
) -> None:
    recorded, struck = strike(processes, fault, max(1, ROUNDS))
    ledger.add(recorded, struck)
    judge_unavailability(recorded, struck, fault)


@pytest.mark.skipif(not ROUNDS, reason="takes long: make resilience")
def test_a_full_disk_stops_its_replica_and_loses_nothing(
    processes: ProcessWorld, ledger: Ledger
) -> None:
    if processes.disk is None:
        pytest.skip("no loop device can be mounted here: needs root")
    recorded, struck = strike(processes, DISK_FULL, ROUNDS)
    ledger.add(recorded, struck)
    log = of(processes.deployment).log_lines(DISK_OF)
    assert sum("no space left on device" in line for line in log) >= ROUNDS  # it was really full
    judge_minority(recorded, struck)


def test_every_data_file_is_whole_in_the_end(processes: ProcessWorld) -> None:
    """After some checkpoints more: a replica that was recovered ends its sync with one."""
    processes.gate()
    workload = processes.workload(run_time=ENDLESS_S)
    try:
        assert workload.record(CHECKPOINT_OPERATIONS).failed == {}
    finally:
        workload.close()
    processes.stop_whole()
    for replica in processes.replicas:
        processes.integrity(replica.index)
