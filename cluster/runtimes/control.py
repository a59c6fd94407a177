"""How one replica is handled on the host that holds it: the shell commands. Pure.

Each runtime stops and starts a replica with its own tool, and keeps the data file in a place of its
own. What a task does with them (back up, restore, recover, restart in turn) is the same everywhere,
and goes through these commands, locally or over SSH. None asks anything. On this machine none needs
root; on a server all run as root, as pyinfra does there.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster import REPOSITORY, config
from cluster.config.inventory import Deployment, Runtime
from cluster.runtimes import docker_engine, image, layout, processes, volumes
from cluster.tigerbeetle import binary, data_file


class Control(Protocol):
    """One replica's shell commands (POSIX sh), each a line of its own."""

    @property
    def data_file(self) -> str:
        """The data file's path, as the programs in ``tigerbeetle`` and ``sh`` see it."""

    @property
    def addresses(self) -> str:
        """All replicas' addresses, as they reach one another."""

    @property
    def stop(self) -> str:
        """Stop the replica, return when its process has ended; success when none runs."""

    @property
    def start(self) -> str:
        """Start the replica; it listens only later: ``health.wait`` waits for that."""

    @property
    def prepare(self) -> str:
        """Make the place where the data file belongs; nothing to do when it is there."""

    def tigerbeetle(self, *arguments: str, network: bool = False) -> str:
        """Run the server's program on files beside the data file; ``network`` to reach its peers.

        Raises Refusal where there is none.
        """

    def sh(self, script: str) -> str:
        """Run ``script`` where the data file is, as its owner; stdin and stdout go through."""


def of(deployment: Deployment, index: int) -> Control:
    """The commands for replica ``index``."""
    kinds: dict[Runtime, type[_Process | _Container | _Unit | _HostContainer]] = {
        "process": _Process,
        "compose": _Container,
        "systemd": _Unit,
        "docker": _HostContainer,
    }
    return kinds[deployment.runtime](deployment, index)


def unlocked(control: Control, script: str) -> str:
    """``script`` while it holds the data file's lock, which a server holds as long as it runs.

    So it fails at once when the replica runs, and no replica can start before it ends. What is
    copied this way is consistent, whoever else believes to be in charge.
    """
    path = shlex.quote(control.data_file)
    return control.sh(
        f"test -f {path} || {{ echo {path}: no such data file >&2; exit 1; }}\n"
        f"flock -n {path} true || {{ echo {path}: its replica runs >&2; exit 1; }}\n"
        f"exec flock -n {path} sh -c {shlex.quote(script)}"
    )


@dataclass(frozen=True)
class _Process:
    """Under the deployment's supervisor, on this machine."""

    deployment: Deployment
    index: int

    @property
    def data_file(self) -> str:
        return str(processes.files_of(self.deployment, self.index).data)

    @property
    def addresses(self) -> str:
        return self.deployment.peers

    @property
    def stop(self) -> str:
        # Without a supervisor nothing runs; supervisorctl would call that a failure.
        control = shlex.quote(str(processes.socket_path(self.deployment)))
        return f"test ! -S {control} || {self._supervisorctl('stop')}"

    @property
    def start(self) -> str:
        # A supervisor that is started starts them all; one without its file is given up at once.
        control = shlex.quote(str(processes.socket_path(self.deployment)))
        supervisord = self._tool("supervisord")
        unset = f"env --unset={config.PREFIX}AUTH_TOKEN"
        running, gone = self._supervisorctl("start"), f"{unset} {supervisord}"
        return f"if test -S {control}; then {running}; else {gone}; fi"

    @property
    def prepare(self) -> str:
        directory = processes.files_of(self.deployment, self.index).directory
        return f"umask 077; mkdir -p {shlex.quote(str(directory))}"

    def tigerbeetle(self, *arguments: str, network: bool = False) -> str:
        return shlex.join([*binary.command(self.deployment), *arguments])

    def sh(self, script: str) -> str:
        return shlex.join(["sh", "-c", script])

    def _supervisorctl(self, action: str) -> str:
        return self._tool("supervisorctl", action, processes.program_name(self.index))

    def _tool(self, program: str, *arguments: str) -> str:
        path = Path(sys.executable).parent / program
        configuration = processes.config_path(self.deployment)
        return shlex.join([str(path), "-c", str(configuration), *arguments])


@dataclass(frozen=True)
class _Container:
    """A service of the Compose project; its data file is in a volume, seen through our image."""

    deployment: Deployment
    index: int

    @property
    def data_file(self) -> str:
        return f"/data/{data_file.file_name(self.deployment.cluster.id, self.index)}"

    @property
    def addresses(self) -> str:
        return self.deployment.peers

    @property
    def stop(self) -> str:
        name = shlex.quote(self._name)
        return f'test -z "$(docker ps --quiet --filter name=^/{name}$)" || docker stop {name}'

    @property
    def start(self) -> str:
        # As `docker start`, and also where somebody has removed the container.
        options = ("--detach", "--no-deps", "--no-build", "--no-recreate")
        return docker_engine.shell(
            docker_engine.compose("up", *options, f"tigerbeetle-{self.index}")
        )

    @property
    def prepare(self) -> str:
        # Compose makes network and volume, so that they carry its labels.
        service = f"tigerbeetle-{self.index}"
        return docker_engine.shell(
            docker_engine.compose(
                "run", "--rm", "--no-deps", "--no-TTY", "--entrypoint=true", service
            )
        )

    def tigerbeetle(self, *arguments: str, network: bool = False) -> str:
        # The image's own entry: its tini passes on the signal of a `timeout` outside.
        return shlex.join([*self._helper(network), self._image, *arguments])

    def sh(self, script: str) -> str:
        return shlex.join([*self._helper(), "--entrypoint=sh", self._image, "-c", script])

    @property
    def _name(self) -> str:
        return self.deployment.cluster.replicas[self.index].name

    @property
    def _image(self) -> str:
        return image.name(self.deployment.cluster)

    def _helper(self, network: bool = False) -> list[str]:
        """A container confined as the replica's own, with its volume and user.

        Its output may be a whole data file, which the engine would write into a log as well.
        """
        cluster = self.deployment.cluster
        seccomp = cluster.seccomp
        if seccomp != "unconfined":
            seccomp = str(REPOSITORY / seccomp)
        reach = f"{docker_engine.project()}_tigerbeetle-net" if network else "none"
        return [
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--log-driver=none",
            f"--network={reach}",
            "--read-only",
            "--cap-drop=ALL",
            "--cap-add=IPC_LOCK",
            f"--security-opt=seccomp={seccomp}",
            f"--volume={volumes.name(self.index)}:/data",
        ]


@dataclass(frozen=True)
class _Unit:
    """A systemd unit on a server of its own."""

    deployment: Deployment
    index: int

    @property
    def data_file(self) -> str:
        return layout.data_path(self.deployment, self.index)

    @property
    def addresses(self) -> str:
        return self.deployment.peers

    @property
    def stop(self) -> str:
        return f"systemctl stop {layout.unit(self.deployment, self.index)}"

    @property
    def start(self) -> str:
        return f"systemctl start {layout.unit(self.deployment, self.index)}"

    @property
    def prepare(self) -> str:
        path = shlex.quote(layout.directory(self.deployment, self.index))
        return f"install -d -m 0700 -o {layout.UID} -g {layout.UID} {path}"

    def tigerbeetle(self, *arguments: str, network: bool = False) -> str:
        return self._as_owner(layout.PROGRAM_LINK, *arguments)

    def sh(self, script: str) -> str:
        return self._as_owner("sh", "-c", script)

    def _as_owner(self, *command: str) -> str:
        return shlex.join(["runuser", "-u", layout.USER, "--", *command])


@dataclass(frozen=True)
class _HostContainer:
    """The one container on a server of its own; its data file is in a directory of the server."""

    deployment: Deployment
    index: int

    @property
    def data_file(self) -> str:
        return f"/data/{data_file.file_name(self.deployment.cluster.id, self.index)}"

    @property
    def addresses(self) -> str:
        return self.deployment.peers

    @property
    def stop(self) -> str:
        name = shlex.quote(self.deployment.cluster.replicas[self.index].name)
        return f'test -z "$(docker ps --quiet --filter name=^/{name}$)" || docker stop {name}'

    @property
    def start(self) -> str:
        # As `docker start`, and also where somebody has removed the container.
        file = layout.compose_file(self.index)
        return f"docker compose --file {file} up --detach --no-build --no-recreate"

    @property
    def prepare(self) -> str:
        path = shlex.quote(layout.directory(self.deployment, self.index))
        return f"install -d -m 0700 -o {layout.UID} -g {layout.UID} {path}"

    def tigerbeetle(self, *arguments: str, network: bool = False) -> str:
        # The image's own entry: its tini passes on the signal of a `timeout` outside.
        return shlex.join([*self._helper(network), self._image, *arguments])

    def sh(self, script: str) -> str:
        return shlex.join([*self._helper(), "--entrypoint=sh", self._image, "-c", script])

    @property
    def _image(self) -> str:
        return image.name(self.deployment.cluster)

    def _helper(self, network: bool = False) -> list[str]:
        """A container confined as the replica's own, with its directory; nothing is logged."""
        cluster = self.deployment.cluster
        seccomp = "unconfined" if cluster.seccomp == "unconfined" else layout.seccomp_file()
        reach = "host" if network else "none"
        return [
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--log-driver=none",
            f"--network={reach}",
            "--read-only",
            "--cap-drop=ALL",
            "--cap-add=IPC_LOCK",
            f"--security-opt=seccomp={seccomp}",
            f"--volume={layout.directory(self.deployment, self.index)}:/data",
        ]
