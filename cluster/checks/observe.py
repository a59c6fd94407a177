"""Find out the facts, of this machine or of servers over SSH. Changes nothing."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cluster.checks import script
from cluster.checks.facts import ANY, DATA_SUFFIX, SCRIPT, DataFile, Facts, parse
from cluster.config import Cluster, Replica, model
from cluster.config.deployment import Deployment
from cluster.config.servers import Server
from cluster.refusal import understood
from cluster.runtimes import container, docker_engine, image, layout, of, ssh, volumes
from cluster.runtimes.base import Where
from cluster.runtimes.process import Process

IO_URING_SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")
MOUNTS = Path("/proc/self/mountinfo")
#: What is left out for replicas on this machine: nobody else's clock, disk or address is used.
OF_NO_ACCOUNT = Facts(
    kernel=None,
    machine=None,
    filesystem=None,
    has_direct_io=None,
    systemd=None,
    docker=None,
    addresses=None,
    is_synchronised=None,
)
#: What a container is asked about its engine's machine: its root is on the data-root's disk.
_LOOK = r"""
echo io_uring_disabled $(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
echo memory_kib $(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
echo disk_kib $(df -Pk / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
"""
#: As much of a data file as holds its superblock's copies.
_HEAD_BYTES = 98_304
_DATA_FILES = f"*{DATA_SUFFIX}"


def observe(deployment: Deployment) -> Mapping[int, Facts]:
    """Replica index → the facts of its machine, now. Raises Refusal where they cannot be had."""
    looks: Mapping[Where, Callable[[Deployment], Mapping[int, Facts]]] = {
        "processes": _of_processes,
        "containers": _of_containers,
        "servers": _of_servers,
    }
    return looks[of(deployment).WHERE](deployment)


def command(deployment: Deployment, index: int) -> str:
    """The shell line that makes replica ``index``'s server print its facts."""
    replicas = deployment.cluster.replicas
    peers = [r.address for r in replicas if r.index != index]
    directory = layout.directory(deployment, index)
    arguments = (replicas[index].name, directory, str(replicas[index].port), *peers)
    return script.command(SCRIPT, *arguments)


def _of_servers(deployment: Deployment) -> Mapping[int, Facts]:
    """Of all servers, asked together."""

    def ask(server: Server) -> Facts:
        done = ssh.run(server, command(deployment, server.replica))
        wanted, fix = f"what {SCRIPT.name} prints", "see what its shell is, and prints at a login"
        with understood(server.hostname, expected=wanted, fix=fix):
            return parse(done.stdout.splitlines(), time.time(), layout.data_dir(deployment))

    return ssh.on_each(deployment, ask)


def _of_processes(deployment: Deployment) -> Mapping[int, Facts]:
    """Of the machine on which the replicas are processes."""
    runtime = Process(deployment)
    states, orphans = runtime.states() or {}, runtime.orphans()
    existing = deployment.state_dir
    while not existing.exists():
        existing = existing.parent

    # The emulator as a process is a Python program: it runs on any kernel.
    has_io_uring = platform.system() == "Linux" and not deployment.is_emulator

    def facts(replica: Replica) -> Facts:
        index = replica.index
        pid = states[index].pid if index in states else 0
        place = runtime.directory(index)
        return replace(
            _of_replica("process", pid, _arguments(pid), replica, str(replica.ip)),
            kernel=platform.release() if has_io_uring else None,
            memory_bytes=psutil.virtual_memory().available,
            directory=str(existing),
            filesystem=filesystem_of(existing),
            disk_bytes=shutil.disk_usage(existing).free,
            orphan=orphans.get(index, 0),
            is_bootstrapping=Path(runtime.bootstrap_marker(index)).exists(),
            data_files=tuple(map(_data_file, sorted(place.glob(_DATA_FILES)))),
            leftovers=tuple(path.name for path in place.glob(f"{_DATA_FILES}.*")),
        )

    return {replica.index: facts(replica) for replica in deployment.cluster.replicas}


def _of_containers(deployment: Deployment) -> Mapping[int, Facts]:
    """Of the machine whose engine runs the replicas. Raises Refusal without one that will do."""
    engine = docker_engine.check_versions()
    cluster = deployment.cluster
    running = {i: each for i, each in container.of_replicas(cluster).items() if each.pid}
    held = sum(model.held_bytes(each.arguments) or 0 for each in running.values())
    with_volume = volumes.existing(cluster)
    machine = _of_engine(engine, cluster, held)

    def facts(replica: Replica) -> Facts:
        own = running.get(replica.index)
        pid, arguments = (own.pid, own.arguments) if own else (0, "")
        return replace(
            _of_replica("compose", pid, arguments, replica, str(cluster.bind)),
            **machine,
            kernel=engine["KernelVersion"],
            directory=engine["DockerRootDir"],
            engine=engine,
            has_volume=replica.index in with_volume,
        )

    return {replica.index: facts(replica) for replica in cluster.replicas}


def _of_engine(engine: Mapping[str, Any], cluster: Cluster, held: int = 0) -> dict[str, Any]:
    """Memory (replicas have ``held``), disk and sysctl of the engine's machine. Raises Refusal.

    That is seen from here only where it is this machine, and where this user may look. Else the
    engine is asked, by a container; without an image for one, its disk is not known.
    """
    is_here = (engine["KernelVersion"], engine["Name"]) == (platform.release(), platform.node())
    total = int(engine["MemTotal"]) - held
    if is_here:
        with suppress(OSError):
            return {
                "io_uring_disabled": io_uring_disabled(),
                "memory_bytes": min(total, psutil.virtual_memory().available),
                "disk_bytes": shutil.disk_usage(engine["DockerRootDir"]).free,
            }
    looking = next(filter(image.id_of, (image.name(cluster), image.base(cluster))), None)
    if looking is None:
        return {"io_uring_disabled": "0", "memory_bytes": total, "disk_bytes": None}
    run = ["docker", "run", "--rm", "--network=none", "--entrypoint=sh", looking, "-c"]
    said = script.Printed(docker_engine.stdout([*run, _LOOK]).splitlines())
    return {
        "io_uring_disabled": said.one("io_uring_disabled"),
        "memory_bytes": min(total, int(said.one("memory_kib")) * 1024),
        "disk_bytes": int(said.one("disk_kib")) * 1024,
    }


def _of_replica(runtime: str, pid: int, arguments: str, replica: Replica, ip: str) -> Facts:
    """What is found out in the same way of every replica on this machine."""
    seen = replace(OF_NO_ACCOUNT, arguments=arguments)
    holder = "" if pid and seen.has_port(replica) else listener(ip, replica.port)
    return replace(
        seen,
        io_uring_disabled=io_uring_disabled(),
        running={runtime: pid} if pid else {},
        listening=ANY if holder else frozenset(),
        holder=holder,
    )


def filesystem_of(directory: Path) -> str | None:
    """Its type, as this machine has mounted it; None where that is not told."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    inside = directory.resolve()
    mounted, found = Path("/"), None
    for line in lines:
        before, _, behind = line.partition(" - ")
        # The kernel writes spaces, tabs, line ends and backslashes of a path in octal.
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split()[4]))
        if inside.is_relative_to(point) and point.is_relative_to(mounted):  # later ones cover
            mounted, found = point, behind.split()[0]
    return found


def _arguments(pid: int) -> str:
    """What a process was started with; empty where that cannot be seen."""
    try:
        return " ".join(psutil.Process(pid).cmdline()) if pid else ""
    except psutil.Error:
        return ""


def io_uring_disabled() -> str:
    """The sysctl; 0 on a kernel that does not have it."""
    return IO_URING_SYSCTL.read_text().strip() if IO_URING_SYSCTL.exists() else "0"


def listener(ip: str, port: int) -> str:
    """What listens where ``ip:port`` would: 'pid 12 (name)', or as much as can be seen.

    Empty when the address is free.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # an engine elsewhere publishes there
                return _owner(port) or "another process"
    return ""


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp4"):
            is_it = connection.laddr and connection.laddr.port == port
            if is_it and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:  # not ours to see, or it has ended meanwhile
        return ""
    return ""


def _data_file(path: Path) -> DataFile:
    with path.open("rb") as file:
        return DataFile(path.name, os.fstat(file.fileno()).st_size, file.read(_HEAD_BYTES))
