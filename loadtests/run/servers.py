"""CPU, memory and I/O of replicas that run on this machine, under load; and when they end.

Processes are found by who listens on the cluster's ports, so it does not matter who started them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import gevent
import psutil

from loadtests.run.result import Fault, ServerPoint

_MIB = 1024**2


@dataclass
class _Server:
    """A replica's process, and when and what of its I/O was last seen."""

    name: str
    process: psutil.Process
    last: tuple[float, int, int] | None = None


class Servers:
    """Samples the replica processes once a second, from ``start`` to ``stop``."""

    def __init__(self, addresses: str) -> None:
        here = own_addresses()
        listed = (address.rpartition(":") for address in addresses.split(","))
        self._ports = {int(p): i for i, (ip, _, p) in enumerate(listed) if not ip or ip in here}
        self._servers: dict[int, _Server] = {}
        self._seen: set[str] = set()
        self.points: list[ServerPoint] = []
        self.faults: list[Fault] = []
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin sampling in the background."""
        self._find()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End sampling."""
        if self._greenlet:
            self._greenlet.kill()

    @property
    def pids(self) -> list[int]:
        """Of the replicas that run on this machine now."""
        return list(self._servers)

    def _run(self) -> None:
        while True:
            gevent.sleep(1)
            served = {server.name for server in self._servers.values()}
            if len(served) < len(self._seen) or not served:
                self._find()
            for pid in list(self._servers):
                self._sample(pid)

    def _find(self) -> None:
        """Who listens on the ports now. One process may serve several replicas' ports."""
        by_pid: dict[int, set[int]] = {}
        try:
            connections = psutil.net_connections("tcp")
        except psutil.AccessDenied:
            return  # some systems show this to root alone: then there is nothing to plot
        for connection in connections:
            port = connection.laddr.port if connection.laddr else None
            listens = connection.status == psutil.CONN_LISTEN and port in self._ports
            if listens and port is not None and connection.pid is not None:
                by_pid.setdefault(connection.pid, set()).add(self._ports[port])
        for listener, replicas in by_pid.items():
            pid = _server_of(listener)
            if pid is None or pid in self._servers:
                continue
            name = "+".join(str(index) for index in sorted(replicas))
            try:
                process = psutil.Process(pid)
                process.cpu_percent()
            except psutil.NoSuchProcess:
                continue
            self._servers[pid] = _Server(name, process)
            if name in self._seen:
                self.faults.append(Fault(at=time.time(), what=f"replica {name} is back"))
            self._seen.add(name)

    def _sample(self, pid: int) -> None:
        server, now = self._servers[pid], time.time()
        try:
            with server.process.oneshot():
                cpu, rss = server.process.cpu_percent(), server.process.memory_info().rss
                read, written = _io_bytes(server.process)
        except psutil.NoSuchProcess:
            del self._servers[pid]
            self.faults.append(Fault(at=now, what=f"replica {server.name} is gone"))
            return
        before, server.last = server.last, (now, read, written)
        if before is None:
            return  # rates need two looks, and the first may follow the discovery at once
        seconds = now - before[0]
        self.points.append(
            ServerPoint(
                at=now,
                replica=server.name,
                cpu_percent=cpu,
                rss_mib=rss / _MIB,
                read_mib_s=(read - before[1]) / seconds / _MIB,
                write_mib_s=(written - before[2]) / seconds / _MIB,
            )
        )


def own_addresses() -> set[str]:
    """The addresses of this machine: a replica at another is not measured here."""
    interfaces = psutil.net_if_addrs().values()
    return {"localhost", *(one.address for interface in interfaces for one in interface)}


def _server_of(listener: int) -> int | None:
    """The process itself, or, if it is Docker's proxy, the server behind it, if that is seen."""
    try:
        command = psutil.Process(listener).cmdline()
    except psutil.Error:
        return None
    if not command or not command[0].endswith("docker-proxy"):
        return listener
    others = psutil.process_iter(["pid", "cmdline"])
    return server_behind(command, ((p.info["pid"], p.info["cmdline"] or []) for p in others))


def server_behind(
    proxy: Sequence[str], processes: Iterable[tuple[int, Sequence[str]]]
) -> int | None:
    """The pid of the replica that Docker's proxy, with this command line, stands for.

    ``processes``: (pid, command line) of all. The container's tini has the server's own arguments.
    """
    options = dict(pairwise(proxy))
    address = f"{options.get('-container-ip')}:{options.get('-container-port')}"
    for pid, command in processes:
        told = [a for a in command if a.startswith("--addresses=")]
        if not told or command[0].endswith("tini"):
            continue
        addresses = told[0].removeprefix("--addresses=").split(",")
        of = f"_{addresses.index(address)}.tigerbeetle" if address in addresses else None
        if of and command[-1].endswith(of):
            return pid
    return None


def _io_bytes(process: psutil.Process) -> tuple[int, int]:
    """Bytes read from and written to storage; zeros where the system does not tell."""
    try:
        counters = process.io_counters()
    except (psutil.AccessDenied, AttributeError):
        return 0, 0
    return counters.read_bytes, counters.write_bytes
