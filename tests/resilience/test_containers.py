"""The faults once more, on genuine replicas in Docker: the restart policy is what helps."""

from __future__ import annotations

import pytest

from tests.resilience.conftest import ROUNDS, Ledger
from tests.resilience.containers import ContainerWorld
from tests.resilience.faults import FAULTS, UNAVAILABILITY, Fault
from tests.resilience.strikes import judge_minority, judge_unavailability, strike

pytestmark = [
    pytest.mark.genuine,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(not ROUNDS, reason="part of make resilience; make test has the processes"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_minority_of_containers_can_be_lost_and_nothing_acknowledged_with_it(
    containers: ContainerWorld, ledger: Ledger, fault: Fault
) -> None:
    recorded, struck = strike(containers, fault, ROUNDS)
    ledger.add(recorded, struck)
    judge_minority(recorded, struck)


@pytest.mark.parametrize("fault", UNAVAILABILITY, ids=lambda fault: fault.name)
def test_unavailability_of_containers_acknowledges_nothing_and_loses_nothing(
    containers: ContainerWorld, ledger: Ledger, fault: Fault
) -> None:
    recorded, struck = strike(containers, fault, ROUNDS)
    ledger.add(recorded, struck)
    judge_unavailability(recorded, struck, fault)
