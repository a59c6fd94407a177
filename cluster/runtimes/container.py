"""Replicas as containers: what the engine says of one, and what is the same wherever it runs."""

from __future__ import annotations

import re
import shlex
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cluster.config import PREFIX, Cluster
from cluster.refusal import Refusal
from cluster.runtimes import docker_engine, image
from cluster.runtimes.base import ReplicaProcess, Runtime

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
HASH_LABEL = "com.docker.compose.config-hash"
#: Of a container beside a replica's own, which works on its files: the replica's name.
HELPER_LABEL = "wallet-service.helps"

#: Docker waits 0.1, 0.2, 0.4 ... s between restarts: after this many, a replica cannot start.
RESTARTS_MAX = 3

#: A line of ``docker logs --timestamps``; the time always has nine digits.
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\S+Z) ?(.*)")
#: CAP_SYS_RESOURCE of include/uapi/linux/capability.h, which raises limits.
_SYS_RESOURCE = 1 << 24
_LOCKED = re.compile(r"^VmLck:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Container:
    """One container as the engine describes it."""

    name: str
    image_id: str
    project: str
    service: str
    config_hash: str
    arguments: str  # of the server
    state: str  # created, running, paused, restarting, exited, dead
    pid: int
    exit_code: int
    is_oom_killed: bool
    restart_count: int
    error: str  # why the engine could not start it
    health: str  # starting, healthy, unhealthy, or none
    last_check: str
    ips: tuple[str, ...]  # on its networks
    security: tuple[str, ...] = ()  # options, a seccomp profile with all that was in it

    @property
    def process(self) -> ReplicaProcess:
        """In the words that every runtime uses."""
        return process(self.state, self.pid, self.restart_count)


class InContainer(Runtime):
    """A replica in a container of our image, with its data file in /data."""

    HAS_OWN_ROOT = True

    @abstractmethod
    def confinement(self, index: int, *, network: bool) -> list[str]:
        """The options that give a container the replica's seccomp profile, files and network."""

    def data_file(self, index: int) -> str:
        """As every container of the replica sees it."""
        return f"/data/{self.data_file_name(index)}"

    @staticmethod
    def log_options(mark: str) -> list[str]:
        """A mark is the time of a line."""
        return ["--timestamps", *([f"--since={mark}"] if mark else [])]

    @staticmethod
    def marked(said: Sequence[str], mark: str) -> tuple[list[str], str]:
        """Without the times. A new container's lines are newer than those of the one before it."""
        stamped = [(m[1], m[2]) for line in said if (m := _STAMPED.match(line)) and m[1] > mark]
        return [line for _, line in stamped], max((time for time, _ in stamped), default=mark)

    def stop(self, index: int) -> str:
        """Success, too, where there is no such container."""
        name = shlex.quote(self.cluster.replicas[index].name)
        return f'test -z "$(docker ps --quiet --filter name=^/{name}$)" || docker stop {name}'

    def offer(self) -> str:
        """By the base of the image, in a container without network, brought here for it."""
        image.pull_base(self.cluster)
        # The server reads itself by io_uring.
        seccomp = f"--security-opt=seccomp={self.cluster.seccomp}"
        run = ["docker", "run", "--rm", "--network=none", seccomp, "--entrypoint=/tigerbeetle"]
        return docker_engine.stdout([*run, image.base(self.cluster), "version", "--verbose"])

    def tigerbeetle(self, index: int, *arguments: str, network: bool = False) -> str:
        """By the image's own entry: its tini passes on the signal of a `timeout` outside."""
        helper = self._helper(index, network=network)
        return shlex.join([*helper, image.name(self.cluster), *arguments])

    def sh(self, index: int, script: str) -> str:
        """In a container without network."""
        helper = self._helper(index, network=False)
        return shlex.join([*helper, "--entrypoint=sh", image.name(self.cluster), "-c", script])

    def beside(self, index: int, script: str) -> str:
        """In the replica's own container, so that nothing has to be started for it."""
        name = self.cluster.replicas[index].name
        return shlex.join(["docker", "exec", "--interactive", name, "sh", "-c", script])

    def release(self, index: int) -> str:
        """Remove the helpers: a `docker run` that is killed leaves its container behind."""
        find = f"docker ps --all --quiet --filter label={shlex.quote(self._helps(index))}"
        return f'for id in $({find}); do docker rm --force "$id" >/dev/null; done'

    def _helps(self, index: int) -> str:
        return f"{HELPER_LABEL}={self.cluster.replicas[index].name}"

    def _helper(self, index: int, *, network: bool) -> list[str]:
        """A container confined as the replica's own, with its files and user.

        Its output may be a whole data file, which the engine would write into a log as well.
        """
        return [
            *("docker", "run", "--rm", "--interactive", "--log-driver=none"),
            f"--label={self._helps(index)}",
            *("--read-only", "--cap-drop=ALL", "--cap-add=IPC_LOCK"),
            *self.confinement(index, network=network),
        ]


def process(state: str, pid: int, restarts: int) -> ReplicaProcess:
    """A container's state in the words that every runtime uses."""
    if state == "restarting":
        return ReplicaProcess("FATAL" if restarts >= RESTARTS_MAX else "BACKOFF", 0)
    return ReplicaProcess(state.upper(), pid)


def parse(inspected: Mapping[str, Any]) -> Container:
    """A Container from one object of ``docker inspect``."""
    state, labels = inspected["State"], inspected["Config"].get("Labels") or {}
    health = state.get("Health") or {}
    checks = health.get("Log") or []
    return Container(
        name=inspected["Name"].lstrip("/"),
        image_id=inspected["Image"],
        # The image has the project's label too: only Compose's own containers have a hash.
        project=labels.get(PROJECT_LABEL, "") if HASH_LABEL in labels else "",
        service=labels.get(SERVICE_LABEL, ""),
        config_hash=labels.get(HASH_LABEL, ""),
        arguments=" ".join(inspected["Config"].get("Cmd") or ()),
        state=state["Status"],
        pid=state["Pid"],
        exit_code=state["ExitCode"],
        is_oom_killed=state.get("OOMKilled", False),
        restart_count=inspected.get("RestartCount", 0),
        error=state.get("Error", ""),
        health=health.get("Status", "none"),
        last_check=checks[-1]["Output"].strip() if checks else "",
        ips=tuple(
            network["IPAddress"]
            for network in inspected["NetworkSettings"]["Networks"].values()
            if network["IPAddress"]
        ),
        security=tuple(inspected.get("HostConfig", {}).get("SecurityOpt") or ()),
    )


def named(names: Sequence[str]) -> dict[str, Container]:
    """Name → container of those that exist, whoever made them. Raises Refusal."""
    return {c.name: c for c in docker_engine.inspected("container", names, parse)}


def of_replicas(cluster: Cluster) -> dict[int, Container]:
    """Replica index → its container, if it exists and is our project's. Raises Refusal."""
    found = named([replica.name for replica in cluster.replicas])
    ours = {name: c for name, c in found.items() if c.project == docker_engine.project()}
    return {r.index: ours[r.name] for r in cluster.replicas if r.name in ours}


def locked_kib(name: str) -> int | None:
    """Memory that the server has locked; None where its container does not run.

    Asked inside it: the engine's processes may be another machine's.
    """
    script = "grep -hs ^VmLck: /proc/[0-9]*/status"
    done = docker_engine.run(["docker", "exec", name, "sh", "-c", script])
    return max(map(int, _LOCKED.findall(done.stdout)), default=None)


def lowered(cluster: Cluster) -> dict[str, str]:
    """What Compose is told, beside the configuration, of an engine that may not raise limits.

    Nothing where it grants the memlock limit, or as long as there is no image to try it with.
    Raises Refusal where memory would not be locked then.
    """
    image_id = image.id_of(image.name(cluster))
    granted = _granted(image_id, cluster) if image_id else cluster.memlock
    return {} if granted == cluster.memlock else {f"{PREFIX}MEMLOCK": str(granted)}


@cache
def _granted(image_id: str, cluster: Cluster) -> int:
    """The memlock limit that containers get: the configured one, or else the engine's own."""
    run, wanted = ["docker", "run", "--rm", "--network=none"], cluster.memlock
    limit = f"--ulimit=memlock={wanted}"
    tried = docker_engine.run([*run, limit, "--entrypoint=true", image_id])
    if tried.returncode == 0 or "rlimit" not in tried.stderr:
        return wanted
    own = docker_engine.stdout([*run, "--entrypoint=sh", image_id, "-c", "ulimit -H -l"]).strip()
    security = " ".join(docker_engine.info().get("SecurityOptions") or [])
    is_real = not re.search(r"name=(rootless|userns)", security)
    return settle(cluster, own, "the engine", is_real=is_real)


def own_limit(cluster: Cluster, limits: str) -> int | None:
    """The memlock limit of an engine that may not grant the configured one; None where it may.

    ``limits``: CapEff, hard limit and uid_map of what starts its containers; empty where it is not
    known, and taken for one that may.
    """
    capabilities, own = [*limits.split()[:2], "0", "unlimited"][:2]
    may_raise = is_initial(limits) and int(capabilities, 16) & _SYS_RESOURCE
    if may_raise or not own.isdecimal() or 0 <= cluster.memlock <= int(own):
        return None
    return int(own)


def is_initial(limits: str) -> bool:
    """Not in a user namespace: the kernel asks for capabilities outside of any."""
    return limits.split()[2:] == ["0", "0", "4294967295"]


def settle(cluster: Cluster, own: str, engine: str, *, is_real: bool) -> int:
    """The engine's own memlock limit, of KiB, in place of one that it may not grant; says so.

    Raises Refusal where memory would not be locked then: the capability is not real.
    """
    wanted = cluster.memlock
    if not own.isdecimal() or not (is_real or cluster.is_emulator_image):
        raise Refusal(
            f"{PREFIX}MEMLOCK",
            expected=f"{engine} to grant {wanted}{' (unlimited)' if wanted == -1 else ''}",
            found=f"that it may raise no limit above its own ({own} KiB), and that in its user "
            "namespace the capability IPC_LOCK locks no memory",
            fix="give the engine LimitMEMLOCK=infinity (systemctl edit docker; of a rootless one, "
            "systemctl edit user@.service), and start it again",
        )
    said = f"memlock: {engine} may raise no limits: {int(own) * 1024} instead of {wanted}"
    locked = "" if cluster.is_emulator_image else "; the capability IPC_LOCK locks memory anyway"
    print(said + locked, file=sys.stderr, flush=True)
    return int(own) * 1024
