"""Replicas listen on exactly their configured addresses: whoever reaches a port can move money."""

from __future__ import annotations

import ipaddress

from cluster.config import Replica
from tests.infra.world import ProcessWorld


def test_the_replica_listens_on_its_address_and_on_no_other(
    world: ProcessWorld, replica: Replica
) -> None:
    assert world.listening(replica) == {(str(replica.ip), replica.port)}


def test_no_replica_listens_beyond_loopback(world: ProcessWorld, replica: Replica) -> None:
    assert all(ipaddress.ip_address(ip).is_loopback for ip, _ in world.listening(replica))


def test_the_port_accepts_a_connection(world: ProcessWorld, replica: Replica) -> None:
    assert world.host.addr(str(replica.ip)).port(replica.port).is_reachable


def test_the_next_port_is_not_a_replica_s(world: ProcessWorld) -> None:
    beyond = max(replica.port for replica in world.deployment.cluster.replicas) + 1
    for replica in world.deployment.cluster.replicas:
        assert beyond not in {port for _, port in world.listening(replica)}


def test_the_supervisor_is_controlled_by_its_owner_alone(world: ProcessWorld) -> None:
    control = world.host.file(str(world.deployment.state_dir / "supervisor.sock"))
    assert control.is_socket
    assert control.mode == 0o700
