"""The catalogue of faults. Entering one breaks something, leaving it heals; the cluster decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from cluster.health import health
from cluster.operate import rollout
from cluster.tigerbeetle import canary
from tests.resilience.processes import DISK_OF, ProcessWorld
from tests.resilience.world import ZONES, World

Inject = Callable[[World, Sequence[int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """What happens to whom, for how long, and what the gate must forgive the victims."""

    name: str
    victims: Callable[[World], list[int]]
    inject: Inject
    hold_s: float = 0.0
    restarts: bool = False
    panics: bool = False
    unavailability: bool = False
    all_may_restart: bool = False
    ends_by_itself: bool = False  # whoever supervises the victims starts them again at once


def primary(world: World) -> list[int]:
    return [world.primary()]


def backup(world: World) -> list[int]:
    return [world.backup()]


def everyone(world: World) -> list[int]:
    return [replica.index for replica in world.replicas]


def majority(world: World) -> list[int]:
    first = world.primary()
    return [(first + step) % len(world.replicas) for step in range(world.spare + 1)]


def nobody(_world: World) -> list[int]:
    return []


@contextmanager
def killed(world: World, victims: Sequence[int]) -> Iterator[None]:
    """SIGKILL; what supervises the replica starts it again."""
    world.kill(*victims)
    yield


@contextmanager
def paused(world: World, victims: Sequence[int]) -> Iterator[None]:
    """SIGSTOP: alive for the network, dead for everybody."""
    try:
        for index in victims:
            world.pause(index)
        yield
    finally:
        for index in victims:
            world.resume(index)


@contextmanager
def stopped(world: World, victims: Sequence[int]) -> Iterator[None]:
    """Out, until somebody starts it again."""
    try:
        world.stop(*victims)
        yield
    finally:
        world.start(*victims)


@contextmanager
def cut_off(world: World, victims: Sequence[int]) -> Iterator[None]:
    """Alone on the network: neither replicas nor clients reach it."""
    try:
        for index in victims:
            world.cut(index)
        yield
    finally:
        for index in victims:
            world.heal(index)


@contextmanager
def disturbed(world: World, victims: Sequence[int]) -> Iterator[None]:
    """Its links are slow and lossy."""
    try:
        for index in victims:
            world.disturb(index)
        yield
    finally:
        for index in victims:
            world.heal(index)


@contextmanager
def lost(world: World, victims: Sequence[int]) -> Iterator[None]:
    """Its data file is gone; then recovered from the others."""
    world.stop(*victims)
    for index in victims:
        world.lose(index)
    yield
    for index in victims:
        world.recover(index)
    world.start(*victims)


def damaged(zone: str) -> Inject:
    """Random bytes in a zone of its data file while it is stopped."""

    @contextmanager
    def inject(world: World, victims: Sequence[int]) -> Iterator[None]:
        world.stop(*victims)
        for index in victims:
            world.damage(index, zone)
        try:
            yield
        finally:
            world.start(*victims)

    return inject


@contextmanager
def disk_full(world: World, victims: Sequence[int]) -> Iterator[None]:
    """No room left for a replica's data file to grow; what was given up is started again."""
    assert isinstance(world, ProcessWorld)
    world.fill_disk()
    try:
        yield
    finally:
        for index in victims:
            world.stop(index)
        world.free_disk()
        world.start(*victims)


@contextmanager
def rolled(world: World, _victims: Sequence[int]) -> Iterator[None]:
    """Each in turn is stopped and started, behind the gate of the product's own rollouts."""

    def step(index: int) -> None:
        with world.faulty([index]):
            world.stop(index)
            world.start(index)
            health.wait(world.deployment)

    cluster = world.deployment.cluster
    rollout.roll(
        "restart",
        everyone(world),
        rollout.Actions(
            look=lambda: map(rollout.Member.of, health.of_replicas(world.deployment)),
            commits=lambda: canary.probe(world.client_addresses, cluster.id, 15),
            step=step,
            settle=lambda _: [],
            tell=lambda _: None,
        ),
    )
    yield


@contextmanager
def recover_smoke(world: World, victims: Sequence[int]) -> Iterator[None]:
    """One loses its file and is recovered, but not started; another is killed; then the first.

    Between, one replica of three runs: what it acknowledged before must come from it alone.
    """
    lost_one, other = victims
    world.stop(lost_one)
    world.lose(lost_one)
    time.sleep(2)
    world.recover(lost_one)
    world.stop(other)
    try:
        yield
    finally:
        world.start(lost_one)
        time.sleep(5)  # the recovered one and the one that stayed have to do without the other
        world.start(other)


FAULTS = [
    Fault("kill the primary", primary, killed, 2, restarts=True),
    Fault("kill a backup", backup, killed, 2, restarts=True),
    Fault("pause the primary", primary, paused, 5),
    Fault("pause a backup", backup, paused, 5),
    Fault("stop the primary for long", primary, stopped, 12, restarts=True),
    Fault("stop a backup for long", backup, stopped, 12, restarts=True),
    Fault("cut off the primary", primary, cut_off, 6),
    Fault("cut off a backup", backup, cut_off, 6),
    Fault("slow and lossy primary", primary, disturbed, 6),
    Fault("slow and lossy backup", backup, disturbed, 6),
    Fault("lost data file, recovered", backup, lost, 2, restarts=True),
    *(Fault(f"damaged {zone}", backup, damaged(zone), 1, restarts=True) for zone in ZONES),
    Fault("rolling restart", nobody, rolled, all_may_restart=True),
]

DISK_FULL = Fault("disk full", lambda _world: [DISK_OF], disk_full, 25, restarts=True, panics=True)

UNAVAILABILITY = [
    Fault("kill all", everyone, killed, 1, restarts=True, unavailability=True, ends_by_itself=True),
    Fault("full restart", everyone, stopped, 2, restarts=True, unavailability=True),
    Fault("stop a majority", majority, stopped, 6, restarts=True, unavailability=True),
    Fault("pause a majority", majority, paused, 6, unavailability=True),
    Fault("cut off a majority", majority, cut_off, 6, unavailability=True),
    Fault(
        "recover smoke",
        lambda world: [(world.primary() + 2) % 3, (world.primary() + 1) % 3],
        recover_smoke,
        3,
        restarts=True,
        unavailability=True,
    ),
]
