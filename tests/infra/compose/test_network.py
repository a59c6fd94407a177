"""One network, fixed addresses, one published port each: whoever reaches it can move money."""

from __future__ import annotations

import json
from typing import Any

from cluster import config
from cluster.config import Replica
from cluster.runtimes import docker_engine
from tests.infra.world import ContainerWorld


def network(world: ContainerWorld) -> Any:
    name = f"{docker_engine.project()}_tigerbeetle-net"
    return json.loads(world.host.check_output("docker network inspect %s", name))[0]


def test_the_network_has_the_configured_subnet(world: ContainerWorld) -> None:
    pools = network(world)["IPAM"]["Config"]
    assert [pool["Subnet"] for pool in pools] == [str(config.load().subnet)]


def test_every_replica_is_on_the_network_and_nobody_else_at_its_address(
    world: ContainerWorld,
) -> None:
    """Applications may be there too, and the monitoring: it is how they reach the replicas."""
    members = network(world)["Containers"].values()
    at = {(member["IPv4Address"].partition("/")[0], member["Name"]) for member in members}
    expected = {(str(replica.ip), replica.name) for replica in config.load().replicas}
    taken = {ip for ip, _ in expected}
    assert {(ip, name) for ip, name in at if ip in taken} == expected


def test_the_replica_has_its_configured_address_and_no_other(
    world: ContainerWorld, replica: Replica
) -> None:
    networks = world.inspect(replica)["NetworkSettings"]["Networks"]
    expected = str(config.load().replicas[replica.index].ip)
    assert [found["IPAddress"] for found in networks.values()] == [expected]


def test_the_replica_listens_on_its_address_and_on_no_other(
    world: ContainerWorld, replica: Replica
) -> None:
    configured = config.load().replicas[replica.index]
    assert world.listening(replica) == {(str(configured.ip), configured.port)}


def test_one_port_is_published_and_only_where_configured(
    world: ContainerWorld, replica: Replica
) -> None:
    published = world.inspect(replica)["NetworkSettings"]["Ports"]
    bound = {port: bindings for port, bindings in published.items() if bindings}
    assert bound == {
        f"{replica.port}/tcp": [{"HostIp": str(config.load().bind), "HostPort": str(replica.port)}]
    }


def test_the_published_port_accepts_a_connection(world: ContainerWorld, replica: Replica) -> None:
    assert world.host.addr(str(replica.ip)).port(replica.port).is_reachable


def test_replicas_reach_one_another(world: ContainerWorld, replica: Replica) -> None:
    for peer in config.load().replicas:
        assert world.inside(replica, f"nc -z {peer.ip} {peer.port}").rc == 0
        assert world.inside(replica, f"ping -c 1 -W 5 {peer.ip}").rc == 0
