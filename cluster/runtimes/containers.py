"""Replicas as containers of the Compose project on this machine: how they are, what they say.

The runtime "compose": answers what ``cluster.runtimes.base`` asks, from the engine's own records.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import REPOSITORY
from cluster.config import Cluster
from cluster.config.inventory import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import docker_engine
from cluster.runtimes.base import ReplicaProcess

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
HASH_LABEL = "com.docker.compose.config-hash"

#: Nobody starts these again: `restart: unless-stopped` leaves alone what was stopped by hand.
GIVEN_UP = frozenset({"FATAL", "EXITED", "CREATED", "DEAD", "DOWN"})
#: Docker waits 0.1, 0.2, 0.4 ... s between restarts: after this many, a replica cannot start.
RESTARTS_MAX = 3

_LOCKED = re.compile(r"^VmLck:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Container:
    """One container as the engine describes it."""

    name: str
    id: str
    image: str
    image_id: str
    project: str
    service: str
    config_hash: str
    state: str  # created, running, paused, restarting, exited, dead
    pid: int
    exit_code: int
    is_oom_killed: bool
    restart_count: int
    error: str  # why the engine could not start it
    health: str  # starting, healthy, unhealthy, or none
    last_check: str
    started_at: str
    ips: tuple[str, ...]  # on its networks

    @property
    def process(self) -> ReplicaProcess:
        """In the words that every runtime uses."""
        if self.state == "restarting":
            return ReplicaProcess("FATAL" if self.restart_count >= RESTARTS_MAX else "BACKOFF", 0)
        return ReplicaProcess(self.state.upper(), self.pid)


def parse(inspected: Mapping[str, Any]) -> Container:
    """A Container from one object of ``docker inspect``."""
    state, labels = inspected["State"], inspected["Config"].get("Labels") or {}
    health = state.get("Health") or {}
    checks = health.get("Log") or []
    return Container(
        name=inspected["Name"].lstrip("/"),
        id=inspected["Id"],
        image=inspected["Config"]["Image"],
        image_id=inspected["Image"],
        # The image has the project's label too: only Compose's own containers have a hash.
        project=labels.get(PROJECT_LABEL, "") if HASH_LABEL in labels else "",
        service=labels.get(SERVICE_LABEL, ""),
        config_hash=labels.get(HASH_LABEL, ""),
        state=state["Status"],
        pid=state["Pid"],
        exit_code=state["ExitCode"],
        is_oom_killed=state.get("OOMKilled", False),
        restart_count=inspected.get("RestartCount", 0),
        error=state.get("Error", ""),
        health=health.get("Status", "none"),
        last_check=checks[-1]["Output"].strip() if checks else "",
        started_at=state["StartedAt"],
        ips=tuple(
            network["IPAddress"]
            for network in inspected["NetworkSettings"]["Networks"].values()
            if network["IPAddress"]
        ),
    )


def named(names: Sequence[str]) -> dict[str, Container]:
    """Name → container of those that exist, whoever made them. Raises Refusal."""
    done = docker_engine.run(["docker", "container", "inspect", *names])
    if done.returncode != 0 and "o such container" not in done.stderr:
        raise Refusal(docker_engine.refusal(["docker", "container", "inspect"], done.stderr))
    return {c.name: c for c in map(parse, json.loads(done.stdout or "[]"))}


def of_replicas(cluster: Cluster) -> dict[int, Container]:
    """Replica index → its container, if it exists and is our project's. Raises Refusal."""
    found = named([replica.name for replica in cluster.replicas])
    ours = {name: c for name, c in found.items() if c.project == docker_engine.project()}
    return {r.index: ours[r.name] for r in cluster.replicas if r.name in ours}


def one_off() -> list[str]:
    """Names of running ``docker compose run`` containers of the project, such as a format's."""
    filters = [
        f"label={PROJECT_LABEL}={docker_engine.project()}",
        "label=com.docker.compose.oneoff=True",
    ]
    return docker_engine.stdout(
        ["docker", "ps", "--format", "{{.Names}}", *(f"--filter={f}" for f in filters)]
    ).split()


def states(deployment: Deployment) -> dict[int, ReplicaProcess] | None:
    """Replica index → process; None when the project has no replica's container, or no engine."""
    try:
        found = of_replicas(deployment.cluster)
    except Refusal:
        return None
    return {index: container.process for index, container in found.items()} or None


def log_source(deployment: Deployment, index: int) -> str:
    """Where a person reads the replica's log."""
    return f"docker logs {deployment.cluster.replicas[index].name}"


def log_lines(deployment: Deployment, index: int) -> Iterable[str]:
    """All lines that Docker still keeps; empty when there is no container."""
    return _logs(deployment, index)


def log_tail(deployment: Deployment, index: int, lines: int = 15) -> list[str]:
    """The last lines; empty when there is no container."""
    return _logs(deployment, index, f"--tail={lines}")


def follow(deployment: Deployment, indexes: Sequence[int], lines: int) -> int:
    """Print the last lines and go on until interrupted; the exit code."""
    services = [f"tigerbeetle-{index}" for index in indexes]
    command = docker_engine.compose("logs", "--follow", f"--tail={lines}", *services)
    environ = docker_engine.environ()
    return subprocess.run(command, cwd=REPOSITORY, env=environ, timeout=None).returncode  # endless


def locked_kib(pid: int) -> int | None:
    """Memory that the server has locked; None where the engine's processes cannot be seen.

    ``pid`` is the container's PID 1, tini; the server is its child.
    """
    try:
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        status = Path(f"/proc/{tasks[0]}/status").read_text()
    except (OSError, IndexError):
        return None
    match = _LOCKED.search(status)
    return int(match[1]) if match else None


def _logs(deployment: Deployment, index: int, *options: str) -> list[str]:
    """The server writes to stderr; Docker gives both streams, each in its own order."""
    name = deployment.cluster.replicas[index].name
    try:
        done = docker_engine.run(["docker", "logs", *options, name])
    except Refusal:
        return []
    return (done.stdout + done.stderr).splitlines() if done.returncode == 0 else []
