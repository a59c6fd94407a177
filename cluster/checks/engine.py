"""The rules of this machine's Docker engine, for replicas that are containers there. Each raises.

``Refusal`` says in one line what was expected, what was found, and how to fix it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Any

import psutil

from cluster.config import PREFIX, Cluster
from cluster.refusal import Refusal
from cluster.runtimes import container, docker_engine


def check_model(cluster: Cluster, services: Iterable[str] | None = None) -> None:
    """The Compose file has one service for each configured replica."""
    if services is None:
        configured = docker_engine.compose("config", "--format", "json")
        services = docker_engine.json_of(configured, lambda said: list(said["services"]))
    services = sorted(services)
    expected = [docker_engine.service(replica.index) for replica in cluster.replicas]
    if services != expected:
        raise Refusal(
            f"{docker_engine.COMPOSE_FILE.name}: expected the services {', '.join(expected)} of "
            f"env/tigerbittle.env, found {', '.join(services)}. Fix: add or remove services there"
        )


def check_names(cluster: Cluster) -> None:
    """No container of somebody else's has a replica's name."""
    for name, found in container.named([r.name for r in cluster.replicas]).items():
        if found.project != docker_engine.project():
            raise Refusal(
                f"container {name}: expected it to be of project {docker_engine.project()}, found "
                f"{found.project or 'one made by hand'}. Fix: docker rm --force {name}, or change "
                f"{PREFIX}X_CONTAINER_NAME"
            )


def check_subnet(cluster: Cluster) -> None:
    """No other network, of Docker or of this machine, overlaps with ours."""
    own = docker_engine.network()
    for name, subnet in (*_docker_networks(), *_host_networks()):
        if name != own and subnet.overlaps(cluster.subnet):
            raise Refusal(
                f"{PREFIX}SUBNET: expected {cluster.subnet} to be free, found {subnet} of {name}. "
                f"Fix: choose another subnet, and change {PREFIX}X_IP and {PREFIX}ADDRESSES with it"
            )


def check_addresses(cluster: Cluster) -> None:
    """Nobody else on the replicas' network has a replica's address: Docker gives away free ones."""
    network = docker_engine.network()
    own = {str(replica.ip): replica for replica in cluster.replicas}
    for address, holder in _members(network):
        replica = own.get(address)
        if replica and holder != replica.name:
            name = shlex.quote(holder)
            raise Refusal(
                f"{PREFIX}{replica.index}_IP",
                expected=f"{replica.ip} to be free for {replica.name}",
                found=f"it held by {holder}",
                fix=f"docker network disconnect {network} {name}, start the replicas, and connect "
                "it again, with an --ip of its own if it is to stay while they stop",
            )


def _docker_networks() -> Iterator[tuple[str, IPv4Network]]:
    ids = docker_engine.stdout(["docker", "network", "ls", "--quiet"]).split()
    for name, pools in docker_engine.inspected("network", ids, _pools):
        yield from ((name, pool) for pool in pools)


def _pools(network: dict[str, Any]) -> tuple[str, list[IPv4Network]]:
    subnets = [pool.get("Subnet", ":") for pool in network["IPAM"].get("Config") or []]
    return network["Name"], [IPv4Network(subnet) for subnet in subnets if ":" not in subnet]


def _members(network: str) -> Iterator[tuple[str, str]]:
    """Address and name of every container on it; none where there is no network yet."""

    def members(found: dict[str, Any]) -> list[tuple[str, str]]:
        everyone = (found["Containers"] or {}).values()
        return [(each["IPv4Address"].partition("/")[0], each["Name"]) for each in everyone]

    for each in docker_engine.inspected("network", [network], members):
        yield from each


def _host_networks() -> Iterator[tuple[str, IPv4Network]]:
    """This machine's interfaces, Docker's bridges apart: those are networks, named above."""
    bridges = ("br-", "docker", "veth")
    interfaces: Iterable[tuple[str, list[Any]]] = psutil.net_if_addrs().items()
    for name, addresses in interfaces:
        for address in addresses:
            if "." in str(address.address) and address.netmask and not name.startswith(bridges):
                yield name, IPv4Network(f"{address.address}/{address.netmask}", strict=False)
