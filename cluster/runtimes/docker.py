"""Replicas as hardened containers with the host's network, each on a server of its own."""

from __future__ import annotations

import shlex

from cluster import REPOSITORY
from cluster.runtimes import container, image, layout
from cluster.runtimes.base import ReplicaProcess, start_arguments
from cluster.runtimes.container import InContainer
from cluster.runtimes.servers import OnServers


class Docker(InContainer, OnServers):
    """The runtime "docker"."""

    NEEDS_DOCKER = True

    def check_program(self, index: int, machine: str) -> None:
        """To be shipped, the image is here, and built from what is configured."""
        if image.is_shipped(self.deployment):
            image.check_shippable(self.cluster)

    def state_command(self, index: int) -> str:
        """``status pid restarts``, by `docker inspect`."""
        form = "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}"
        name = self.cluster.replicas[index].name
        return f"docker inspect --type=container --format {shlex.quote(form)} {name} 2>/dev/null"

    @staticmethod
    def parse_state(output: str) -> ReplicaProcess | None:
        """None without a container."""
        fields = output.split()
        if len(fields) != 3:
            return None
        return container.process(fields[0], int(fields[1]), int(fields[2]))

    def log_command(self, index: int, *options: str) -> str:
        """By `docker logs`."""
        return shlex.join(["docker", "logs", *options, self.cluster.replicas[index].name])

    def described(self, index: int) -> str:
        """The Compose file, with the image as it was brought. Raises Refusal."""
        own = self.deployment.servers[index].memlock
        return self.compose_file(index, image.identity(self.deployment), own)

    def description(self, index: int) -> dict[str, str]:
        """The Compose file of the one replica on a server."""
        return {layout.compose_file(index): self.described(index)}

    def compose_file(self, index: int, image_id: str, own_limit: int | None = None) -> str:
        """Of replica ``index``; ``image_id`` says which image its name stands for.

        ``own_limit`` is that of an engine that may not grant the configured memlock limit.
        """
        is_unconfined = self.cluster.seccomp == "unconfined"
        values = {
            "command": start_arguments(self.cluster, self.data_file(index)),
            "image": image.name(self.cluster),
            "image_id": image_id,
            "seccomp": self._seccomp,
            "profile": "" if is_unconfined else (REPOSITORY / self.cluster.seccomp).read_text(),
            "memlock": self.cluster.memlock if own_limit is None else own_limit,
        }
        return self.rendered("replica.compose.yaml.j2", index, values)

    def start(self, index: int) -> str:
        """As `docker start`, and also where somebody has removed the container."""
        return f"{self.renew(index)} --no-recreate"

    def renew(self, index: int) -> str:
        """Compose makes the container anew where anything has changed."""
        up = f"docker compose --file {layout.compose_file(index)} up --detach --no-build"
        return f"{self.release(index)}; {up}"

    def confinement(self, index: int, *, network: bool) -> list[str]:
        """The replica's directory, and the host's network where it is asked for."""
        return [
            f"--network={'host' if network else 'none'}",
            f"--security-opt=seccomp={self._seccomp}",
            f"--volume={layout.directory(self.deployment, index)}:/data",
        ]

    @property
    def _seccomp(self) -> str:
        is_unconfined = self.cluster.seccomp == "unconfined"
        return "unconfined" if is_unconfined else layout.seccomp_file()
