"""A genuine server's memory is locked: swap would bypass its protection against bad storage."""

from __future__ import annotations

from cluster.config import Replica, size_bytes
from tests.infra.world import ServerWorld

#: Special mappings of the kernel ([vvar], [vdso]) are counted in VmSize, and never locked.
UNLOCKABLE_KIB = 256
IPC_LOCK = 1 << 14  # include/uapi/linux/capability.h


def kib(world: ServerWorld, replica: Replica, field: str) -> int:
    return int(world.status(replica, field).removesuffix(" kB"))


def test_all_memory_is_locked(world: ServerWorld, replica: Replica) -> None:
    size, locked = kib(world, replica, "VmSize"), kib(world, replica, "VmLck")
    assert size - UNLOCKABLE_KIB <= locked <= size
    assert locked > 1024**2  # a genuine replica takes gigabytes


def test_the_capability_to_lock_is_the_only_one(world: ServerWorld, replica: Replica) -> None:
    assert int(world.status(replica, "CapEff"), 16) == IPC_LOCK
    assert int(world.status(replica, "CapBnd"), 16) == IPC_LOCK


def test_the_server_did_not_warn_of_unlocked_memory(world: ServerWorld, replica: Replica) -> None:
    assert "warning(mlock)" not in world.log(replica)


def test_the_replica_keeps_within_its_memory_limit(world: ServerWorld, replica: Replica) -> None:
    limit = size_bytes(world.deployment.cluster.memory_limit)
    assert kib(world, replica, "VmRSS") * 1024 < limit
