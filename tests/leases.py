"""What a test holds alone on this machine, while others run: ports, subnets, memory.

Each thing is a byte of a lock file that is shared by all test processes of the machine, and held by
a record lock: the kernel gives it back when the process ends, however it ends. What was free a
moment ago may be taken; what is leased is not, unless by a program that knows no leases.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path

import psutil

from cluster.config import PREFIX
from cluster.config.model import MEMORY_BASE_BYTES

#: Below the kernel's own (net.ipv4.ip_local_port_range): no outgoing connection takes one.
PORTS = range(20_000, 32_000)
SUBNETS = range(50 * 256)  # /24 networks from 10.200.0.0 on

#: What one genuine replica takes with the tests' cache (64 MiB), and what the rest is left: with
#: 4 GiB the kernel had so few pages for files that a third cluster made everything slower.
REPLICA_BYTES = MEMORY_BASE_BYTES + 64 * 1024**2
SPARED_BYTES = 6 * 1024**3

#: Of the inotify instances that the kernel lets a user have: what one server of a test bed takes
#: while it boots (its systemd, journald, udevd, ...: nine were seen), and what the rest is left.
SERVER_INSTANCES = 12
SPARED_INSTANCES = 24
SERVERS_OF_LARGEST_BED = 8
_INOTIFY_MAX = Path("/proc/sys/fs/inotify/max_user_instances")

WAIT_S = 3600

_DIRECTORY = Path(tempfile.gettempdir()) / "wallet-service-leases"


class Locks:
    """A lock file of this machine; byte N stands for the thing number N."""

    def __init__(self, name: str) -> None:
        _DIRECTORY.mkdir(exist_ok=True)
        path = _DIRECTORY / name
        if not path.exists():
            path.touch()
            path.chmod(0o666)  # another user's tests share the machine's ports too
        # Open until the process ends: closing it would give back all that it holds.
        self._file = os.open(path, os.O_RDWR)
        self.held: set[int] = set()

    def take(self, number: int) -> bool:
        """Hold a thing, unless this or another process does."""
        if number in self.held:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        self.held.add(number)
        return True

    def give_back(self, numbers: Sequence[int]) -> None:
        """Let others have them."""
        for number in numbers:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
            self.held.discard(number)


@cache
def _locks(name: str) -> Locks:
    return Locks(name)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of 127.0.0.1, TCP and UDP, that are this process's until it ends."""
    locks = _locks("ports")
    leased: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(leased) == count:
            break
        if locks.take(port) and _is_unused(port):
            leased.append(port)
    assert len(leased) == count, f"no {count} ports of {PORTS} are free"
    return tuple(leased)


def free_subnet() -> IPv4Network:
    """A /24 that no Docker network overlaps with, and that is this process's until it ends."""
    taken, locks = _docker_networks(), _locks("subnets")
    for number in random.SystemRandom().sample(SUBNETS, len(SUBNETS)):
        subnet = IPv4Network(f"10.{200 + number // 256}.{number % 256}.0/24")
        if not any(subnet.overlaps(t) for t in taken) and locks.take(number):
            return subnet
    raise AssertionError("no subnet is free")


@contextmanager
def memory(replicas: int) -> Iterator[None]:
    """Room for so many genuine replicas: waits until others have given back enough.

    Inside of it, less can be asked for again: that is part of it. More can not, since two that hold
    some and wait for more would wait for ever: ask for all at once.
    """
    held = _Memory.of_this_process()
    if held.spare >= replicas or replicas == 0:
        held.spare -= replicas
        try:
            yield
        finally:
            held.spare += replicas
        return
    assert not held.units, f"ask for all at once: `with memory({len(held.units) + replicas}):`"
    held.wait_for(replicas)
    try:
        yield
    finally:
        held.give_back()


@contextmanager
def servers(count: int) -> Iterator[None]:
    """Room for so many servers of a test bed: waits until others have given back enough."""
    held = _wait_for("servers", count, servers_max())
    try:
        yield
    finally:
        _locks("servers").give_back(held)


def replicas_max() -> int:
    """How many genuine replicas this machine has memory for."""
    return max(3, (psutil.virtual_memory().total - SPARED_BYTES) // REPLICA_BYTES)


def servers_max() -> int:
    """How many servers of test beds the kernel lets boot; the largest bed is always tried."""
    if not _INOTIFY_MAX.exists():
        return SERVERS_OF_LARGEST_BED
    free = int(_INOTIFY_MAX.read_text()) - SPARED_INSTANCES
    return max(SERVERS_OF_LARGEST_BED, free // SERVER_INSTANCES)


def _wait_for(
    what: str, count: int, total: int, is_free: Callable[[], bool] = lambda: True
) -> list[int]:
    """Hold so many of ``total`` units, once others have given back enough and it is really free."""
    assert count <= total, f"{what}: this machine has room for {total}, not for {count}"
    locks, deadline = _locks(what), time.monotonic() + WAIT_S
    while True:
        units = [unit for unit in range(total) if locks.take(unit)]
        if len(units) >= count and is_free():
            locks.give_back(units[count:])
            return units[:count]
        locks.give_back(units)
        assert time.monotonic() < deadline, f"{what}: room for {len(units)} of {count}"
        time.sleep(random.uniform(0.2, 1.0))


class _Memory:
    """The units (one replica each) that this process holds, and how many of them are unused."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.spare = 0

    @staticmethod
    @cache
    def of_this_process() -> _Memory:
        return _Memory()

    def wait_for(self, count: int) -> None:
        # What others hold they may not have taken yet; what no lease speaks of may be taken.
        self.units = _wait_for(
            "memory",
            count,
            replicas_max(),
            lambda: psutil.virtual_memory().available > count * REPLICA_BYTES + SPARED_BYTES // 4,
        )

    def give_back(self) -> None:
        _locks("memory").give_back(self.units)
        self.units = []


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Nobody else is at ``what`` on this machine at the same time: waits for its turn."""
    locks = _locks(f"alone-{what}")
    while not locks.take(0):
        time.sleep(random.uniform(0.1, 0.3))
    try:
        yield
    finally:
        locks.give_back([0])


def give_locust_its_port() -> None:
    """Let every locust that this process starts with workers have a port of its own for them."""
    (port,) = free_ports(1)
    os.environ["LOCUST_MASTER_BIND_PORT"] = os.environ["LOCUST_MASTER_NODE_PORT"] = str(port)


def addresses(ports: Sequence[int]) -> dict[str, str]:
    """The settings of replicas at ``ports``, at the addresses that the env file gives to three."""
    ips = [f"172.20.0.1{index}" for index in range(len(ports))]
    return {
        **{f"{PREFIX}{index}_PORT": str(port) for index, port in enumerate(ports)},
        **{f"{PREFIX}{index}_IP": ip for index, ip in enumerate(ips)},
        **{
            f"{PREFIX}{index}_CONTAINER_NAME": f"tigerbeetle-{index}" for index, _ in enumerate(ips)
        },
        f"{PREFIX}ADDRESSES": ",".join(f"{ip}:{p}" for ip, p in zip(ips, ports, strict=True)),
    }


def _is_unused(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no use
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _docker_networks() -> list[IPv4Network]:
    def ask(*arguments: str) -> str:
        command = ["docker", "network", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120
        ).stdout

    networks = json.loads(ask("inspect", *ask("ls", "--quiet").split()) or "[]")
    pools = [pool for network in networks for pool in network["IPAM"].get("Config") or []]
    return [IPv4Network(pool["Subnet"]) for pool in pools if ":" not in pool["Subnet"]]
