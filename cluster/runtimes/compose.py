"""Replicas as containers of the Compose project on this machine.

``docker-compose.tb.yaml`` is the one description of them; this only drives it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import IO

from cluster import REPOSITORY, config
from cluster.interruption import whole
from cluster.refusal import Failed, Refusal
from cluster.runtimes import container, diagnoses, docker_engine, image, volumes
from cluster.runtimes.base import Diagnosis, ReplicaProcess, Todo
from cluster.runtimes.container import Container, InContainer
from cluster.tigerbeetle.data_file import Past, Plan

#: A build pulls its base over the slowest line; everything else takes seconds.
_SHOWN_TIMEOUT_S = 3600.0
#: Compose waits for the engine's answers first.
_END_TIMEOUT_S = 60.0
#: Between a command's end and the last line of it.
_LAST_WORDS_S = 5.0


class Compose(InContainer):
    """The runtime "compose"."""

    #: Nobody starts these again: `restart: unless-stopped` leaves alone what was stopped by hand.
    GIVEN_UP = frozenset({"FATAL", "EXITED", "CREATED", "DEAD", "DOWN"})
    HIDES_FILES = True
    WHERE = "containers"
    HAS_OWN_NETWORK = True
    KEPT = "to have a container"
    DISK_SETTING = "the engine's data-root (docker system df)"

    def states(self) -> dict[int, ReplicaProcess] | None:
        """None, too, where no engine answers."""
        try:
            found = container.of_replicas(self.cluster)
        except Refusal:
            return None
        return {index: each.process for index, each in found.items()} or None

    def check_readable(self) -> None:
        """Raises Refusal without an engine: not even that they are down is known then."""
        docker_engine.info()

    def log_source(self, index: int) -> str:
        """The command to type."""
        return f"docker logs {self.cluster.replicas[index].name}"

    def log_after(self, index: int, mark: str) -> tuple[Sequence[str], str]:
        """As far as Docker still keeps it."""
        return self.marked(self._logs(index, *self.log_options(mark)), mark)

    def log_tail(self, index: int, lines: int = 15) -> list[str]:
        """The last of them."""
        return self._logs(index, f"--tail={lines}")

    def follow(self, indexes: Sequence[int], lines: int) -> int:
        """By ``docker compose logs``."""
        services = map(docker_engine.service, indexes)
        command = docker_engine.compose("logs", "--follow", f"--tail={lines}", *services)
        environ = docker_engine.environ()
        done = subprocess.run(command, cwd=REPOSITORY, env=environ, timeout=None)  # endless
        return done.returncode

    def diagnose(self, index: int, process: ReplicaProcess | None, said: str) -> list[Diagnosis]:
        """From what the engine says of its container, and from the log."""
        replica = self.cluster.replicas[index]
        found = container.of_replicas(self.cluster).get(index)
        return diagnoses.of_container(found, replica, said)

    @property
    def up(self) -> str:
        """As the README names it."""
        return "make compose-tb-up"

    @property
    def new(self) -> str:
        """As the README names it."""
        return "make compose-tb-format"

    def explain(self, said: str) -> str:
        """From the catalogue of known troubles."""
        return str(diagnoses.of_text(said) or "")

    def bootstrap_marker(self, index: int) -> str:
        """None: an unfinished ``.partial`` in the volumes says the same."""
        return ""

    @property
    def place(self) -> str:
        """The project's volumes."""
        return f"in the volumes {volumes.name(0).removesuffix('0')}*"

    def plan(self, past: Past, *, is_asked_for: bool) -> Plan | None:
        """From the volumes, as far as there is an image to look into them. Raises Refusal."""
        has_image = image.id_of(image.name(self.cluster)) is not None
        if not has_image and (is_asked_for or volumes.existing(self.cluster)):
            return None
        found = volumes.read(self.cluster)
        return volumes.decide(found, self.cluster, past, is_asked_for=is_asked_for)

    def files(self) -> Mapping[int, Sequence[str]]:
        """Raises Refusal, too, without an image to look into the volumes."""
        if volumes.existing(self.cluster):
            image.require(self.cluster)
        return {i: v.files if v else () for i, v in volumes.read(self.cluster).items()}

    def format_all(self) -> None:
        """In two phases, see ``volumes``. Raises Refusal."""
        refuse_while_in_use(self.cluster)
        found = volumes.read(self.cluster)
        if volumes.decide(found, self.cluster) == "format":
            for command in volumes.format_commands(self.cluster, found):
                show(command, variables=container.lowered(self.cluster))

    def start(self, index: int) -> str:
        """As `docker start`, and also where somebody has removed the container."""
        return self._up(index, "--no-recreate")

    def renew(self, index: int) -> str:
        """Compose makes the container anew where anything has changed that it sees."""
        found = container.of_replicas(self.cluster).get(index)
        return self._up(
            index, *(["--force-recreate"] if found and self._is_outgrown(found) else [])
        )

    def prepare(self, index: int) -> str:
        """Compose makes network and volume, so that they carry its labels."""
        making = docker_engine.in_service(index, "true")
        return docker_engine.shell(making, **container.lowered(self.cluster))

    def confinement(self, index: int, *, network: bool) -> list[str]:
        """The service's volume, and its network where it is asked for."""
        seccomp = self.cluster.seccomp
        if seccomp != "unconfined":
            seccomp = str(REPOSITORY / seccomp)
        return [
            f"--network={docker_engine.network() if network else 'none'}",
            f"--security-opt=seccomp={seccomp}",
            f"--volume={volumes.name(index)}:/data",
        ]

    def todo(self, marks: Mapping[int, str]) -> Todo | None:
        """By Compose's own hashes; not known before the image is built. Raises Refusal."""
        return self.stale() if image.is_current(self.cluster) else None

    def stale(self) -> Todo:
        """Replicas that do not run, or not as configured now. Raises Refusal."""
        asking = docker_engine.compose("config", "--hash=*")
        hashes = docker_engine.stdout(asking, **container.lowered(self.cluster))
        configured = dict(line.split() for line in hashes.splitlines())
        image_id = image.id_of(image.name(self.cluster))
        found = container.of_replicas(self.cluster)

        def is_as_configured(each: Container | None) -> bool:
            return (
                each is not None
                and each.pid > 0
                and each.image_id == image_id
                and each.config_hash == configured.get(each.service)
                and not self._is_outgrown(each)
            )

        running = {index for index, each in found.items() if each.pid}
        todo = {r.index for r in self.cluster.replicas if not is_as_configured(found.get(r.index))}
        return Todo(todo - running, todo & running)

    def stop_all(self, running: Collection[int]) -> list[str]:
        """Stop and remove the containers and their network; the volumes stay."""
        docker_engine.info()
        if not container.of_replicas(self.cluster):
            return []
        return [docker_engine.shell(docker_engine.compose("down", "--remove-orphans"))]

    def check_whole(self) -> None:
        """Raises Refusal also without an engine."""
        docker_engine.info()
        super().check_whole()

    def _is_outgrown(self, each: Container) -> bool:
        """The seccomp profile has changed: Compose compares its name, and not what is in it."""
        if self.cluster.seccomp == "unconfined":
            return False
        wanted = json.loads((REPOSITORY / self.cluster.seccomp).read_text())
        own = [o.removeprefix("seccomp=") for o in each.security if o.startswith("seccomp={")]
        return bool(own) and json.loads(own[0]) != wanted

    def _up(self, index: int, *options: str) -> str:
        options = ("--detach", "--no-deps", "--no-build", *options)
        up = docker_engine.compose("up", *options, docker_engine.service(index))
        started = docker_engine.shell(up, **container.lowered(self.cluster))
        return f"{self.release(index)}; {started}"

    def _logs(self, index: int, *options: str) -> list[str]:
        """The server writes to stderr; Docker gives both streams, each in its own order."""
        try:
            done = docker_engine.run(
                ["docker", "logs", *options, self.cluster.replicas[index].name]
            )
        except Refusal:
            return []
        return (done.stdout + done.stderr).splitlines() if done.returncode == 0 else []


def build(cluster: config.Cluster) -> None:
    """Build our image, bringing its base when that is absent. Raises Refusal."""
    image.pull_base(cluster)
    show(docker_engine.compose("build"), variables=image.build_variables(cluster))


def refuse_while_in_use(cluster: config.Cluster) -> None:
    """Raises Refusal when a replica runs, or a one-off container, such as another format."""
    running = [c.name for c in container.of_replicas(cluster).values() if c.state != "exited"]
    of_project = f"--filter=label={container.PROJECT_LABEL}={docker_engine.project()}"
    one_off = "--filter=label=com.docker.compose.oneoff=True"
    ask = ["docker", "ps", "--format", "{{.Names}}", of_project, one_off]
    if using := [*running, *docker_engine.stdout(ask).split()]:
        raise Refusal(
            f"format: expected no container to use the volumes, found {', '.join(using)}. "
            "Fix: make compose-tb-down"
        )


def show(
    command: list[str], *, is_apart: bool = False, variables: Mapping[str, str] | None = None
) -> None:
    """Run with the output on the terminal as it comes. Raises Failed with a known cause."""
    process: subprocess.Popen[str] = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=docker_engine.environ(**(variables or {})),
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=is_apart,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    said: list[str] = []
    reader = threading.Thread(target=_tell, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        process.wait(_SHOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _end(process)
        raise Failed(
            f"`{shlex.join(command)}`: expected its end within {_SHOWN_TIMEOUT_S:g} s, found: "
            f"{(said or ['no output'])[-1].strip()}. Fix: look at the engine's own log"
        ) from None
    except KeyboardInterrupt:  # by a signal to this program alone
        _end(process)
        raise
    reader.join(_LAST_WORDS_S)
    if process.returncode != 0:
        known = diagnoses.of_text("".join(said))
        raise Failed(str(known) if known else docker_engine.refusal(command, "".join(said)))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tell(output: IO[str], said: list[str]) -> None:
    with output:
        for line in output:
            print(line, end="", flush=True)
            said.append(line)


def show_line(line: str) -> None:
    """The same for a shell line, to its end: it may be a stop and a start."""
    with whole("starting the replica"):
        show(["sh", "-c", line], is_apart=True)  # from a terminal's Ctrl-C
