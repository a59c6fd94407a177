"""Find out the facts, of this machine or of servers over SSH. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from cluster.checks import script
from cluster.checks.facts import ANY, SCRIPT, DataFile, Facts, parse
from cluster.config import Replica, model
from cluster.config.deployment import Deployment
from cluster.config.servers import Server
from cluster.runtimes import container, docker_engine, layout, ssh, volumes
from cluster.runtimes.process import Process

IO_URING_SYSCTL = Path("/proc/sys/kernel/io_uring_disabled")
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
#: As much of a data file as holds its superblock's copies.
_HEAD_BYTES = 98_304
_DATA_FILES = "*.tigerbeetle"


def observe(deployment: Deployment) -> Mapping[int, Facts]:
    """Replica index → the facts of its machine, now. Raises Refusal where they cannot be had."""
    here = {"process": _of_processes, "compose": _of_containers}
    return here.get(deployment.runtime, _of_servers)(deployment)


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
        return replace(
            _of_replica("process", pid, _arguments(pid), replica, str(replica.ip)),
            kernel=platform.release() if has_io_uring else None,
            memory_bytes=psutil.virtual_memory().available,
            directory=str(existing),
            disk_bytes=shutil.disk_usage(existing).free,
            orphan=orphans.get(index, 0),
            is_bootstrapping=Path(runtime.bootstrap_marker(index)).exists(),
            data_files=tuple(map(_data_file, sorted(runtime.directory(index).glob(_DATA_FILES)))),
        )

    return {replica.index: facts(replica) for replica in deployment.cluster.replicas}


def _of_containers(deployment: Deployment) -> Mapping[int, Facts]:
    """Of the machine whose engine runs the replicas. Raises Refusal without one that will do."""
    engine = docker_engine.check_versions()
    cluster = deployment.cluster
    running = {i: each for i, each in container.of_replicas(cluster).items() if each.pid}
    held = sum(model.held_bytes(each.arguments) or 0 for each in running.values())
    with_volume = volumes.existing(cluster)
    root = Path(engine["DockerRootDir"])

    def facts(replica: Replica) -> Facts:
        own = running.get(replica.index)
        pid, arguments = (own.pid, own.arguments) if own else (0, "")
        return replace(
            _of_replica("compose", pid, arguments, replica, str(cluster.bind)),
            kernel=engine["KernelVersion"],
            # Docker Desktop's engine has a machine of its own, with its own memory and disk.
            memory_bytes=min(int(engine["MemTotal"]) - held, psutil.virtual_memory().available),
            directory=str(root),
            disk_bytes=shutil.disk_usage(root).free if root.is_dir() else None,
            engine=engine,
            has_volume=replica.index in with_volume,
        )

    return {replica.index: facts(replica) for replica in cluster.replicas}


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
        except OSError:
            return _owner(port) or "another process"
    return ""


def _owner(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp4")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        is_it = connection.laddr and connection.laddr.port == port
        if is_it and connection.status == psutil.CONN_LISTEN and connection.pid:
            return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def _data_file(path: Path) -> DataFile:
    with path.open("rb") as file:
        return DataFile(path.name, os.fstat(file.fileno()).st_size, file.read(_HEAD_BYTES))
