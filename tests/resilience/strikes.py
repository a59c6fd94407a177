"""Strike a cluster under a recorded load: gate, fault, gate, and what the clients made of it."""

from __future__ import annotations

import time

from loadtests.recovery import Strike, measure
from tests.resilience.faults import Fault
from tests.resilience.recorded import Recorded
from tests.resilience.world import World

#: Undisturbed load before a fault and after the gate behind it.
QUIET_S = 2.0
#: Longer than any number of rounds: the workload is told when to stop.
ENDLESS_S = 3600
#: Liveness: once healed, an answer comes within this. A bound, not a measure of speed.
ANSWER_WITHIN_S = 60.0
#: An answer may have been on its way when the majority went.
IN_FLIGHT_NS = 500_000_000


def strike(world: World, fault: Fault, rounds: int) -> tuple[Recorded, list[Strike]]:
    """The fault ``rounds`` times under one recorded load; the history, checked, and the figures."""
    world.gate()
    workload = world.workload(run_time=ENDLESS_S)
    try:
        struck = []
        for _ in range(rounds):
            time.sleep(QUIET_S)
            struck.append(once(world, fault))
        time.sleep(QUIET_S)
        recorded = workload.finish()
    finally:
        workload.close()
    return recorded, [
        measure(one.model_copy(update={"run": recorded.run.name}), recorded.history)
        for one in struck
    ]


def once(world: World, fault: Fault) -> Strike:
    """Break, hold, heal, and wait until all is well again."""
    victims = fault.victims(world)
    with world.faulty(victims, unavailability=fault.unavailability):
        begun = time.monotonic_ns()
        with fault.inject(world, victims):
            broken = time.monotonic_ns()
            time.sleep(fault.hold_s)
            healing = time.monotonic_ns()
        world.gate(
            may_restart=_everyone(world) if fault.all_may_restart else victims * fault.restarts,
            may_panic=victims * fault.panics,
        )
    return Strike(
        fault=fault.name, victims=victims, deployment=world.deployment.name,
        broken=broken if fault.unavailability else begun, healing=healing,
        gated=time.monotonic_ns(),
    )  # fmt: skip


def answered_while_gone(recorded: Recorded, struck: Strike) -> list[str]:
    """What was answered while no majority was there: nothing must have been."""
    return [
        str(operation)
        for operation in recorded.history.operations
        if operation.completed is not None
        and struck.broken + IN_FLIGHT_NS < operation.completed < struck.healing
    ]


def _everyone(world: World) -> list[int]:
    return [replica.index for replica in world.replicas]


def judge_minority(recorded: Recorded, struck: list[Strike]) -> None:
    """The history is passed, the others went on, and the wait was bounded."""
    assert recorded.failed == {}
    assert recorded.exit_code == 0
    for one in struck:
        assert one.answered > 0
        assert one.gap_s < ANSWER_WITHIN_S


def judge_unavailability(recorded: Recorded, struck: list[Strike], fault: Fault) -> None:
    """The history is passed, nothing was answered meanwhile, and the wait after it was bounded."""
    assert recorded.failed == {}
    assert recorded.exit_code == 0
    for one in struck:
        if not fault.ends_by_itself:
            assert answered_while_gone(recorded, one) == []
        assert one.gap_s - one.broken_s < ANSWER_WITHIN_S + one.gate_s
