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
        services = docker_engine.json_of(configured)["services"]
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
    found = docker_engine.inspected("network", [network])  # nothing: there is no network yet
    for member in (member for each in found for member in (each["Containers"] or {}).values()):
        replica = own.get(member["IPv4Address"].partition("/")[0])
        if replica and member["Name"] != replica.name:
            name = shlex.quote(member["Name"])
            raise Refusal(
                f"{PREFIX}{replica.index}_IP",
                expected=f"{replica.ip} to be free for {replica.name}",
                found=f"it held by {member['Name']}",
                fix=f"docker network disconnect {network} {name}, start the replicas, and connect "
                "it again, with an --ip of its own if it is to stay while they stop",
            )


def _docker_networks() -> Iterator[tuple[str, IPv4Network]]:
    ids = docker_engine.stdout(["docker", "network", "ls", "--quiet"]).split()
    for network in docker_engine.inspected("network", ids):
        for pool in network["IPAM"].get("Config") or []:
            if ":" not in pool.get("Subnet", ":"):
                yield network["Name"], IPv4Network(pool["Subnet"])


def _host_networks() -> Iterator[tuple[str, IPv4Network]]:
    """This machine's interfaces, Docker's bridges apart: those are networks, named above."""
    bridges = ("br-", "docker", "veth")
    interfaces: Iterable[tuple[str, list[Any]]] = psutil.net_if_addrs().items()
    for name, addresses in interfaces:
        for address in addresses:
            if "." in str(address.address) and address.netmask and not name.startswith(bridges):
                yield name, IPv4Network(f"{address.address}/{address.netmask}", strict=False)
