"""Strike a cluster under a recorded load: gate, fault, gate, and what the clients made of it."""

from __future__ import annotations

import time

from cluster.tigerbeetle.waiting import wait_until
from loadtests.report.recovery import Strike, measure
from tests.resilience.faults import Fault
from tests.resilience.recorded import Recorded, Workload
from tests.resilience.world import World

#: Undisturbed load before a fault and after the gate behind it.
QUIET_S = 2.0
#: Longer than any number of rounds: the workload is told when to stop.
ENDLESS_S = 3600
#: Liveness: without a minority, and once a majority is back, an answer comes within this. It is a
#: bound, not a measure of speed.
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
            struck.append(once(world, fault, workload))
        time.sleep(QUIET_S)
        recorded = workload.finish()
    finally:
        workload.close()
    return recorded, [
        measure(one.model_copy(update={"run": recorded.run.name}), recorded.history)
        for one in struck
    ]


def once(world: World, fault: Fault, workload: Workload) -> Strike:
    """Break, hold, heal, and wait until all is well again.

    A minority is gone until the others have answered without it, which is bounded: no client may
    have to wait for the repair.
    """
    victims = fault.victims(world)
    with world.faulty(victims, unavailability=fault.unavailability):
        begun = time.monotonic_ns()
        with fault.inject(world, victims):
            broken = time.monotonic_ns()
            time.sleep(fault.hold_s)
            if not fault.unavailability:
                wait_until(
                    lambda: (workload.has_answer_since(begun + IN_FLIGHT_NS), "none"),
                    what="an answer without the victims",
                    timeout_s=ANSWER_WITHIN_S,
                )
            healing = time.monotonic_ns()
        world.gate(
            may_restart=_everyone(world) if fault.all_may_restart else victims * fault.restarts,
            may_panic=victims * fault.panics,
        )
    return Strike(
        fault=fault.name,
        victims=victims,
        deployment=world.deployment.name,
        broken=broken if fault.unavailability else begun,
        healing=healing,
        gated=time.monotonic_ns(),
    )


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
    """The history is passed, and no client waited for long: ``once`` saw the others go on."""
    assert recorded.failed == {}
    assert recorded.exit_code == 0
    for one in struck:
        assert 0 < one.gap_s < ANSWER_WITHIN_S + one.gate_s


def judge_unavailability(recorded: Recorded, struck: list[Strike], fault: Fault) -> None:
    """The history is passed, nothing was answered meanwhile, and the wait after it was bounded."""
    assert recorded.failed == {}
    assert recorded.exit_code == 0
    for one in struck:
        if not fault.ends_by_itself:
            assert answered_while_gone(recorded, one) == []
        broken_s = (one.healing - one.broken) / 1e9
        assert one.gap_s - broken_s < ANSWER_WITHIN_S + one.gate_s
