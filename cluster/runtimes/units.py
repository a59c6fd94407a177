"""Replicas as systemd units on servers of their own, or as containers there: how they are.

The runtimes "systemd" and "docker": answer what ``cluster.runtimes.base`` asks, over SSH.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable, Sequence

from cluster.config.inventory import Deployment
from cluster.config.servers import Server
from cluster.runtimes import layout, ssh
from cluster.runtimes.base import ReplicaProcess
from cluster.runtimes.containers import RESTARTS_MAX

#: Nobody starts these again.
GIVEN_UP = frozenset({"FATAL", "EXITED", "CREATED", "DEAD"})
#: A server that cannot be asked. It may be restarting, so waiting on is of use.
UNREACHABLE = ReplicaProcess("UNREACHABLE", 0)
LINES_MAX = 20_000
#: Each probe of the port leaves this line; weeks of them would hide what was said before.
_NOISE = "orderly shutdown"


def states(deployment: Deployment) -> dict[int, ReplicaProcess] | None:
    """Replica index → process; None when no server has anything of the deployment."""

    def ask(server: Server) -> ReplicaProcess | None:
        try:
            done = ssh.run(server, _state_script(deployment, server.replica))
        except ssh.SshError:
            return UNREACHABLE
        if deployment.runtime == "systemd":
            return parse_unit(done.stdout)
        return parse_container(done.stdout)

    found = ssh.on_each(deployment, ask)
    return {index: process for index, process in found.items() if process is not None} or None


def parse_unit(output: str) -> ReplicaProcess | None:
    """The state in what ``systemctl show`` prints; None when there is no such unit."""
    fields = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if fields.get("LoadState") != "loaded":
        return None
    pid = int(fields.get("MainPID") or 0)
    state = fields.get("ActiveState", "")
    if state == "activating" and int(fields.get("NRestarts") or 0) >= RESTARTS_MAX:
        return ReplicaProcess("FATAL", 0)
    known = {
        "active": "RUNNING",
        "activating": "BACKOFF",
        "deactivating": "STOPPING",
        "failed": "FATAL",
        "inactive": "EXITED",
    }
    return ReplicaProcess(known.get(state, state.upper() or "UNKNOWN"), pid)


def parse_container(output: str) -> ReplicaProcess | None:
    """The state in ``status pid restarts`` of ``docker inspect``; None without a container."""
    fields = output.split()
    if len(fields) != 3:
        return None
    state, pid, restarts = fields[0], int(fields[1]), int(fields[2])
    if state == "restarting":
        return ReplicaProcess("FATAL" if restarts >= RESTARTS_MAX else "BACKOFF", 0)
    return ReplicaProcess(state.upper(), pid)


def log_source(deployment: Deployment, index: int) -> str:
    """Where a person reads the replica's log."""
    server = deployment.servers[index]
    return f"ssh {server.hostname} {_log_command(deployment, index)}"


def log_lines(deployment: Deployment, index: int) -> Iterable[str]:
    """The newest lines that the server still keeps, without those that probes leave."""
    command = _log_command(deployment, index)
    return _lines(deployment, index, f"{command} 2>&1 | grep -v {_quoted(_NOISE)} | {_tail()}")


def log_tail(deployment: Deployment, index: int, lines: int = 15) -> list[str]:
    """The last lines; empty when there is none, or the server cannot be reached."""
    return _lines(deployment, index, f"{_log_command(deployment, index)} 2>&1 | {_tail(lines)}")


def follow(deployment: Deployment, indexes: Sequence[int], lines: int) -> int:
    """Print the last lines of these replicas and go on until interrupted; the exit code."""
    followers = [
        subprocess.Popen(
            [
                *ssh.command(deployment.servers[index]),
                ssh.line(deployment.servers[index], _follow_script(deployment, index, lines)),
            ],
            stdin=subprocess.PIPE,  # open for as long as this program lives
        )
        for index in indexes
    ]
    try:
        return max(follower.wait() for follower in followers)
    finally:
        for follower in followers:
            follower.terminate()
            follower.wait()


def _state_script(deployment: Deployment, index: int) -> str:
    if deployment.runtime == "systemd":
        return (
            f"systemctl show {layout.unit(deployment, index)} "
            "--property=LoadState,ActiveState,MainPID,NRestarts"
        )
    form = "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}"
    name = deployment.cluster.replicas[index].name
    return f"docker inspect --type=container --format {_quoted(form)} {name} 2>/dev/null"


def _log_command(deployment: Deployment, index: int, *options: str) -> str:
    name = deployment.cluster.replicas[index].name
    if deployment.runtime == "systemd":
        journal = ["journalctl", f"--namespace={layout.JOURNAL}", f"--unit={name}", "--output=cat"]
        return shlex.join([*journal, "--quiet", "--no-pager", *options])
    return shlex.join(["docker", "logs", *options, name])


def _follow_script(deployment: Deployment, index: int, lines: int) -> str:
    count = "--lines" if deployment.runtime == "systemd" else "--tail"
    command = _log_command(deployment, index, "--follow", f"{count}={lines}")
    shown = f"{command} 2>&1 | sed -u {_quoted(f's/^/replica-{index} | /')}"
    # A quiet log has nothing to write, and so would never notice that nobody reads it any more:
    # it ends when our end of its input does.
    return f"exec 3<&0; {{ cat <&3; kill 0; }} >/dev/null 2>&1 & {shown}"


def _lines(deployment: Deployment, index: int, script: str) -> list[str]:
    try:
        return ssh.run(deployment.servers[index], script).stdout.splitlines()
    except ssh.SshError:
        return []


def _tail(lines: int = LINES_MAX) -> str:
    return f"tail -n {lines}"


def _quoted(text: str) -> str:
    return shlex.quote(text)
