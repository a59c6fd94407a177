"""Is this machine ready to run the replicas in Docker? Checks without impact; each raises.

``Refusal`` says in one line what was expected, what was found, and how to fix it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import psutil

from cluster import config
from cluster.config import PREFIX, Cluster
from cluster.refusal import Refusal
from cluster.runtimes import containers, docker_engine, image, volumes
from cluster.runtimes.processes import listener
from cluster.tigerbeetle.data_file import Plan

#: TigerBeetle needs the io_uring of this kernel.
KERNEL_MIN = (5, 11)
IO_URING_SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")
#: A formatted, still empty data file is 1.063 GiB, all of it allocated; leave room to grow.
DATA_FILE_BYTES = 1_280 * 1024**2
_VERSION = re.compile(r"(\d+)\.(\d+)")


def check_all(cluster: Cluster) -> Plan | None:
    """Every check, cheapest first; what the data files allow, None where no image can look.

    Raises Refusal.
    """
    info = docker_engine.check_versions()
    check_kernel(info)
    check_model(cluster, docker_engine.model())
    check_names(cluster)
    check_ports(cluster)
    check_subnet(cluster)
    check_memory(cluster, info)
    check_disk(cluster, info)
    check_memlock(cluster)
    return check_data_files(cluster)


def refusal(cluster: Cluster) -> str | None:
    """Why the replicas cannot run in Docker here and now; None when they can.

    The image, or its base, must be here or in a registry that answers. A setting that only needs
    to be corrected is a refusal too: nothing is guessed.
    """
    try:
        check_all(cluster)
        if not image.is_obtainable(cluster):
            return f"no image {image.base(cluster)}, here or in its registry"
    except Refusal as error:
        return str(error)
    return None


def check_kernel(info: Mapping[str, Any], sysctl: Path = IO_URING_SYSCTL) -> None:
    """The engine's kernel has io_uring, and nobody switched it off."""
    match = _VERSION.search(info["KernelVersion"])
    if match is None or (int(match[1]), int(match[2])) < KERNEL_MIN:
        raise Refusal(
            f"kernel: expected {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or newer, found "
            f"{info['KernelVersion']}. Fix: run Docker on a newer kernel: it lacks io_uring"
        )
    disabled = sysctl.read_text().strip() if sysctl.exists() else "0"
    if disabled != "0":
        raise Refusal(
            f"kernel.io_uring_disabled: expected 0, found {disabled}. "
            "Fix: sysctl -w kernel.io_uring_disabled=0"
        )


def check_model(cluster: Cluster, model: Mapping[str, Any]) -> None:
    """The Compose file has one service for each configured replica."""
    services = sorted(model["services"])
    expected = [f"tigerbeetle-{replica.index}" for replica in cluster.replicas]
    if services != expected:
        raise Refusal(
            f"{docker_engine.COMPOSE_FILE.name}: expected the services {', '.join(expected)} of "
            f"env/tigerbittle.env, found {', '.join(services)}. Fix: add or remove services there"
        )


def check_names(cluster: Cluster) -> None:
    """No container of somebody else's has a replica's name."""
    for name, found in containers.named([r.name for r in cluster.replicas]).items():
        if found.project != docker_engine.project():
            raise Refusal(
                f"container {name}: expected it to be of project {docker_engine.project()}, found "
                f"{found.project or 'one made by hand'}. Fix: docker rm --force {name}, or change "
                f"{PREFIX}X_CONTAINER_NAME"
            )


def check_ports(cluster: Cluster) -> None:
    """Each published port is free, or its own replica's."""
    running = containers.of_replicas(cluster)
    for replica in cluster.replicas:
        if replica.index in running and running[replica.index].pid:
            continue
        holder = listener(str(cluster.bind), replica.port)
        if holder:
            raise Refusal(
                f"{PREFIX}{replica.index}_PORT: expected {cluster.bind}:{replica.port} to be free, "
                f"found {holder} listening. Fix: stop it, or change the port here and in "
                f"{PREFIX}ADDRESSES"
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


def check_memory(cluster: Cluster, info: Mapping[str, Any]) -> None:
    """Memory for the replicas that do not run yet: they take all of it at once."""
    if image.engine_of(cluster) == "emulator":
        return
    running = containers.of_replicas(cluster)
    starting = [r for r in cluster.replicas if not (r.index in running and running[r.index].pid)]
    needed = len(starting) * config.memory_bytes(cluster)
    # Docker Desktop's engine has a machine of its own, with its own memory.
    available = min(int(info["MemTotal"]), psutil.virtual_memory().available)
    if available < needed:
        raise Refusal(
            f"memory: expected {_gib(needed)} free for {len(starting)} replicas to start, found "
            f"{_gib(available)}. Fix: free some, lower {PREFIX}CACHE_GRID, or give Docker Desktop "
            "more in Settings, Resources"
        )


def check_disk(cluster: Cluster, info: Mapping[str, Any]) -> None:
    """Room for the data files that do not exist yet, where the engine keeps volumes."""
    root = Path(info["DockerRootDir"])
    if image.engine_of(cluster) == "emulator" or not root.is_dir():  # Docker Desktop's: not here
        return
    missing = len(cluster.replicas) - len(volumes.existing(cluster))
    free = shutil.disk_usage(root).free
    if free < missing * DATA_FILE_BYTES:
        raise Refusal(
            f"disk: expected {_gib(missing * DATA_FILE_BYTES)} free in {root} for {missing} data "
            f"files, found {_gib(free)}. Fix: free some (docker system df), or move the data-root"
        )


def check_data_files(cluster: Cluster) -> Plan | None:
    """None is foreign, damaged, or lost among others; as far as there is an image to look with."""
    return volumes.plan(cluster) if image.id_of(image.name(cluster)) else None


def check_memlock(cluster: Cluster) -> None:
    """The engine grants the memlock limit; as far as there is an image to try it with."""
    if not image.id_of(image.name(cluster)):
        return
    limit = f"--ulimit=memlock={cluster.memlock}"
    done = docker_engine.run(
        ["docker", "run", "--rm", "--network=none", limit, "--entrypoint=true", image.name(cluster)]
    )
    if done.returncode != 0 and "rlimit" in done.stderr:
        raise Refusal(
            f"{PREFIX}MEMLOCK: expected the engine to grant {cluster.memlock}"
            f"{' (unlimited)' if cluster.memlock == -1 else ''}, found that it may not raise "
            "limits (no CAP_SYS_RESOURCE). Fix: set it to the engine's own limit in bytes, such as "
            "8388608; memory is locked all the same, by the image's file capability"
        )


def _docker_networks() -> Iterator[tuple[str, IPv4Network]]:
    ids = docker_engine.stdout(["docker", "network", "ls", "--quiet"]).split()
    inspected = docker_engine.json_of(["docker", "network", "inspect", *ids]) if ids else []
    for network in inspected:
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


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
