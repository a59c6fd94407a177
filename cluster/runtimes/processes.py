"""Replicas as supervised processes on this machine: where their files are, and how they are.

One supervisord per deployment starts the replicas and starts again what dies. Everything of a
deployment is under its state directory (mode 0700, git-ignored):

    supervisord.conf .log .pid   supervisor.sock
    bootstrapping                while the first format is under way: no replica ever started
    replica-0/   <cluster>_0.tigerbeetle   replica.log   replica.pid
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import xmlrpc.client
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from cluster import REPOSITORY
from cluster.config.inventory import Deployment
from cluster.runtimes.base import ReplicaProcess
from cluster.tigerbeetle import data_file

#: Supervisor has given up, or there is none: nobody will start these again.
GIVEN_UP = frozenset({"FATAL", "DOWN"})

RUN_REPLICA = REPOSITORY / "files" / "tigerbeetle" / "run-replica.sh"

#: sun_path holds 108 bytes, and supervisor binds <socket>.<pid> before it renames.
SOCKET_PATH_MAX = 96
_TAIL = shutil.which("tail") or "tail"


@dataclass(frozen=True)
class ReplicaFiles:
    """Where one replica keeps its things."""

    directory: Path
    data: Path
    log: Path
    pid: Path


def files_of(deployment: Deployment, index: int) -> ReplicaFiles:
    """The paths of replica ``index``."""
    directory = deployment.state_dir / f"replica-{index}"
    return ReplicaFiles(
        directory=directory,
        data=directory / data_file.file_name(deployment.cluster.id, index),
        log=directory / "replica.log",
        pid=directory / "replica.pid",
    )


def socket_path(deployment: Deployment) -> Path:
    """Supervisor's control socket."""
    return deployment.state_dir / "supervisor.sock"


def bootstrap_marker(deployment: Deployment) -> Path:
    """Exists from before the first format until after the last: an interrupted one can go on."""
    return deployment.state_dir / "bootstrapping"


def config_path(deployment: Deployment) -> Path:
    """Supervisor's configuration file."""
    return deployment.state_dir / "supervisord.conf"


def program_name(index: int) -> str:
    """Replica ``index`` in supervisor's words."""
    return f"replica-{index}"


def start_command(deployment: Deployment, server: list[str], index: int) -> list[str]:
    """The argument list that runs replica ``index`` in the foreground."""
    cluster, files = deployment.cluster, files_of(deployment, index)
    options = [f"--addresses={cluster.addresses}", f"--cache-grid={cluster.cache_grid}"]
    if cluster.statsd:
        options += ["--experimental", f"--statsd={cluster.statsd}"]
    return [*server, "start", *options, str(files.data)]


def format_command(deployment: Deployment, server: list[str], index: int, path: Path) -> list[str]:
    """The argument list that formats ``path`` as replica ``index``'s data file."""
    cluster = deployment.cluster
    return [
        *server,
        "format",
        f"--cluster={cluster.id}",
        f"--replica={index}",
        f"--replica-count={len(cluster.replicas)}",
        str(path),
    ]


def supervisor_values(deployment: Deployment, server: list[str]) -> dict[str, Any]:
    """What ``supervisord.conf.j2`` is filled with; '%' is doubled, as supervisor expands it."""
    replicas = []
    for replica in deployment.cluster.replicas:
        files = files_of(deployment, replica.index)
        run = [str(RUN_REPLICA), str(files.pid), *start_command(deployment, server, replica.index)]
        replicas.append(
            {
                "program": program_name(replica.index),
                "command": shlex.join(run).replace("%", "%%"),
                "directory": str(files.directory).replace("%", "%%"),
                "log": str(files.log).replace("%", "%%"),
            }
        )
    return {
        "label": deployment.label,
        "inventory": deployment.file,
        "state_dir": str(deployment.state_dir).replace("%", "%%"),
        "replicas": replicas,
    }


def states(deployment: Deployment) -> dict[int, ReplicaProcess] | None:
    """Replica index → process, asked of supervisor; None when no supervisor answers."""
    control = socket_path(deployment)
    if not control.exists():
        return None
    proxy = xmlrpc.client.ServerProxy(
        "http://localhost", transport=SupervisorTransport(serverurl=f"unix://{control}")
    )
    try:
        info = proxy.supervisor.getAllProcessInfo()
    except (OSError, xmlrpc.client.Error):
        return None
    assert isinstance(info, list)  # noqa: S101 - narrows what xmlrpc calls a union
    return {
        int(program["name"].rpartition("-")[2]): ReplicaProcess(
            program["statename"], program["pid"]
        )
        for program in info
    }


def orphans(deployment: Deployment) -> dict[int, int]:
    """Replica index → pid of replicas that outlived their supervisor. Empty while it lives."""
    if states(deployment) is not None:
        return {}
    found = {}
    for replica in deployment.cluster.replicas:
        files = files_of(deployment, replica.index)
        pid = _read_pid(files.pid)
        if pid is not None and _runs(pid, str(files.data)):
            found[replica.index] = pid
    return found


def listener(ip: str, port: int) -> str | None:
    """What listens where ``ip:port`` would: 'pid 12 (name)', or as much as can be seen.

    None when the address is free.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError:
            pass
        else:
            return None
    return _owner(port) or "another process"


def _owner(port: int) -> str | None:
    try:
        connections = psutil.net_connections(kind="tcp4")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        is_it = connection.laddr and connection.laddr.port == port
        if is_it and connection.status == psutil.CONN_LISTEN and connection.pid:
            return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return None


def log_source(deployment: Deployment, index: int) -> str:
    """The replica's log file."""
    return str(files_of(deployment, index).log)


def log_lines(deployment: Deployment, index: int) -> Iterable[str]:
    """All lines of the replica's log, the rotated parts first."""
    return open_log(files_of(deployment, index).log)


def log_tail(deployment: Deployment, index: int, lines: int = 15) -> list[str]:
    """The last lines of the replica's log."""
    return tail(files_of(deployment, index).log, lines)


def follow(deployment: Deployment, indexes: Sequence[int], lines: int) -> int:
    """Print the last lines and go on until interrupted; the exit code."""
    paths = [log_source(deployment, index) for index in indexes]
    command = [_TAIL, f"--lines={lines}", "-F", *paths]
    return subprocess.run(command, timeout=None).returncode  # endless


def tail(path: Path, lines: int = 15) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def open_log(path: Path) -> Iterable[str]:
    """All lines of a log, the rotated parts first; empty when there is none."""
    parts = sorted(path.parent.glob(path.name + ".*"), reverse=True)
    for part in (*parts, path):
        if part.is_file():
            with part.open(errors="replace") as lines:
                yield from lines


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _runs(pid: int, argument: str) -> bool:
    """True when the process lives and was started with ``argument``: pids are used again."""
    try:
        return argument in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
