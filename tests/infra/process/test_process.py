"""Each replica runs as its own process, as whoever deployed it, and carries no secret."""

from __future__ import annotations

import getpass

from cluster.config import Replica
from tests.infra.world import ProcessWorld


def test_the_replica_belongs_to_the_deploying_user(world: ProcessWorld, replica: Replica) -> None:
    assert world.host.file(f"/proc/{world.pid(replica)}").user == getpass.getuser()


def test_every_replica_is_a_process_of_its_own(world: ProcessWorld) -> None:
    pids = {world.pid(replica) for replica in world.deployment.cluster.replicas}
    assert len(pids) == len(world.deployment.cluster.replicas)


def test_the_token_is_in_no_process(world: ProcessWorld, replica: Replica) -> None:
    token = world.deployment.cluster.token
    assert token not in world.proc(replica, "cmdline")
    assert token not in world.proc(replica, "environ")
