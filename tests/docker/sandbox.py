"""Clusters of a test's own in Docker: no name, address, port or volume is a user's.

They are removed with their data when the test ends. Base images are those that are there; none is
pulled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.config import PREFIX
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import TIMEOUT_S, Sandbox
from tests.leases import alone, free_ports, free_subnet, memory

#: RLIMIT_MEMLOCK where the engine may not raise limits: the kernel's own default.
MEMLOCK_FALLBACK = 8 * 1024**2

#: Engines whose image this process knows to be built.
_built: set[str] = set()

BASES = {
    "emulator": {"IMAGE": "tigerbeetle-emulator", "CUSTOM_IMAGE": "tigerbeetle-emulator-custom"},
    "tigerbeetle": {},
}


def docker(*arguments: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run ``docker ARGUMENTS``; never raises for its exit code."""
    return subprocess.run(
        ["docker", *arguments], text=True, capture_output=True, timeout=timeout_s, check=False
    )


def pause(name: str) -> None:
    """Freeze a container. On a busy machine runc gives up at first ("unable to freeze")."""

    def frozen() -> tuple[bool, str]:
        done = docker("pause", name)
        return done.returncode == 0, done.stderr

    wait_until(frozen, what=f"{name} to freeze", timeout_s=1200)


@cache
def lacks_engine() -> str | None:
    """Why nothing can run in Docker here; None when it can."""
    try:
        if docker("info").returncode != 0:
            return "no Docker engine answers: start it, or .ci/provision-docker engine"
        if docker("compose", "version").returncode != 0:
            return "no Compose plugin: .ci/provision-docker engine"
    except (FileNotFoundError, PermissionError):  # the latter from an unreadable PATH entry
        return "no docker command: .ci/provision-docker engine"
    if any(has_base(engine) for engine in BASES):
        return None
    return "no base image is here: .ci/provision-docker base"


@cache
def has_base(engine: str) -> bool:
    """True when the base image of the engine is here."""
    return docker("image", "inspect", base_of(engine)).returncode == 0


def needs_emulator() -> None:
    """Skip where the emulator's base image is not here."""
    if not has_base("emulator"):
        pytest.skip("no emulator base image: .ci/provision-docker base")


def base_of(engine: str) -> str:
    """The engine's base image."""
    cluster = config.load()
    return f"{BASES[engine].get('IMAGE', cluster.image)}:{cluster.release}"


def best_engine() -> str:
    """The genuine server where its base image is here, else the emulator."""
    return "tigerbeetle" if has_base("tigerbeetle") else "emulator"


@cache
def memlock() -> str:
    """-1, or what an engine without CAP_SYS_RESOURCE grants."""
    image = base_of(best_engine())
    tried = docker("run", "--rm", "--network=none", "--ulimit=memlock=-1", image, "version")
    return str(MEMLOCK_FALLBACK) if "rlimit" in tried.stderr else "-1"


@dataclass(frozen=True)
class DockerSandbox(Sandbox):
    """A sandbox whose replicas are containers."""

    @property
    def names(self) -> list[str]:
        """The replicas' containers."""
        return [self.environ[f"{PREFIX}{index}_CONTAINER_NAME"] for index in range(3)]

    @property
    def project(self) -> str:
        """The Compose project."""
        return self.environ["COMPOSE_PROJECT_NAME"]

    @property
    def volumes(self) -> list[str]:
        """The volumes that exist, sorted."""
        found = docker("volume", "ls", "--format={{.Name}}", f"--filter=name=^{self.project}_")
        return sorted(found.stdout.split())

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Type ``make ARGUMENTS``, with variables before it."""
        with self.having(**environ):
            return self.run("make", *arguments)

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As users type it: ``docker compose -f ... --env-file ... ARGUMENTS``."""
        return self.run(
            "docker",
            "compose",
            "-f",
            "docker-compose.tb.yaml",
            "--env-file",
            "./env/tigerbittle.env",
            *arguments,
        )

    def start(self, service: str = "tigerbeetle-0", override: str = "") -> str:
        """``docker compose up`` of one service, changed by Compose's own means; what went wrong."""
        file = self.directory / "override.yaml"
        file.write_text(override or "services: {}")
        done = self.compose("-f", str(file), "up", "--detach", "--no-build", service)
        return done.stderr if done.returncode else ""

    def inspect(self, index: int) -> dict[str, Any]:
        """Everything the engine knows of replica ``index``'s container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.names[index]).stdout)[0]
        return found

    def lives(self) -> list[tuple[str, str]]:
        """(container id, start time) of each replica: equal before and after means untouched."""
        return [(i["Id"], i["State"]["StartedAt"]) for i in map(self.inspect, range(3))]

    def in_volume(self, index: int, script: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a shell line as root beside replica ``index``'s data, in /data."""
        cluster = config.load(environ=self.environ)
        image = f"{cluster.custom_image}:{cluster.release}"
        volume = f"--volume={self.project}_tigerbeetle-data-{index}:/data"
        run = ("run", "--rm", "--user=0", "--entrypoint=sh", volume, *more, image)
        return docker(*run, "-c", script)


@contextmanager
def docker_sandbox(
    engine: str = "emulator", /, *, running: int = 3, **overrides: str
) -> Iterator[DockerSandbox]:
    """A sandbox whose containers, network and volumes are removed at the end.

    Its image is here, unless it is to be one of the test's own. ``running``: how many genuine
    replicas will take memory at once.
    """
    ports = free_ports(3)
    subnet = free_subnet()
    ips = [str(subnet[10 + index]) for index in range(3)]
    project = f"ws-test-{ports[0]}"
    settings = {
        "COMPOSE_PROJECT_NAME": project,
        f"{PREFIX}SUBNET": str(subnet),
        f"{PREFIX}ADDRESSES": ",".join(f"{ip}:{p}" for ip, p in zip(ips, ports, strict=True)),
        f"{PREFIX}MEMLOCK": memlock(),
        **{f"{PREFIX}{index}_IP": ip for index, ip in enumerate(ips)},
        **{f"{PREFIX}{index}_CONTAINER_NAME": f"{project}-{index}" for index in range(3)},
        **{f"{PREFIX}{key}": value for key, value in BASES[engine].items()},
    }
    room = memory(running * (engine == "tigerbeetle"))
    with room, tempfile.TemporaryDirectory(prefix="ws-") as directory:
        made = DockerSandbox("inventories/local.py", Path(directory), ports, settings | overrides)
        try:
            if not overrides.keys() & {f"{PREFIX}IMAGE", f"{PREFIX}CUSTOM_IMAGE"}:
                _have_image(made, engine)
            yield made
        finally:
            remove(project)


def _have_image(made: DockerSandbox, engine: str) -> None:
    """The image that all sandboxes of an engine share is built by one of them.

    Two that build it at once would each take the name from what the other has started.
    """
    if engine in _built:
        return
    with alone(f"image-{engine}"):
        done = made.call("compose-tb", "build")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    _built.add(engine)


def found_with_mount(sandbox: DockerSandbox, mount: str) -> dict[str, str]:
    """What the doctor finds where ``mount``, a shell line, holds for it alone."""
    doctor = f"{mount} && exec {sys.executable} -m cluster doctor --json"
    done = sandbox.run("unshare", "--mount", "--propagation=private", "sh", "-c", doctor)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"nothing can be mounted here, as root can: {done.stderr.strip()}")
    return {f["key"]: f["text"] for f in json.loads(done.stdout)["findings"]}


def remove(project: str) -> None:
    """Remove all that a sandbox has left, whatever state it is in."""
    label = f"--filter=label=com.docker.compose.project={project}"
    by_name = f"--filter=name=^/?{project}"
    found = {c for f in (label, by_name) for c in docker("ps", "-aq", f).stdout.split()}
    if found:
        docker("rm", "--force", *found)
    for kind in ("network", "volume"):
        names = docker(kind, "ls", "--quiet", f"--filter=name=^{project}_").stdout.split()
        if names:
            docker(kind, "rm", *names)
