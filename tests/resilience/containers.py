"""The Docker inventory, deployed as users do: replicas killed, paused, unplugged in containers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster import config
from cluster.config.deployment import Deployment
from cluster.runtimes import container
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox
from tests.resilience.world import World

_LOSS = "0.05"


class ContainerWorld(World):
    """Three containers; the restart policy starts again what dies."""

    sandbox: DockerSandbox

    def __init__(self, sandbox: DockerSandbox, runs: Path) -> None:
        cluster = config.load(environ=sandbox.environ)
        deployment = Deployment(
            name="local",
            engine="tigerbeetle",
            runtime="compose",
            cluster=cluster,
            published=cluster.as_published().replicas,
            state_dir=sandbox.state_dir,
        )
        super().__init__(sandbox, deployment, runs)

    @property
    def client_addresses(self) -> str:
        return self.deployment.client_addresses

    @property
    def own_addresses(self) -> str:
        environ = self.sandbox.environ
        return environ["LU_CFG_TIGERBEETLE_ADDRESSES"]

    @property
    def _network(self) -> str:
        return f"{self.sandbox.project}_tigerbeetle-net"

    def pid(self, index: int) -> int:
        """Of the server, which is the only child of the container's tini."""
        found = container.of_replicas(self.deployment.cluster)
        if index not in found or not found[index].pid:
            return 0
        children = psutil.Process(found[index].pid).children()
        return children[0].pid if children else 0

    def signal(self, index: int, number: int) -> None:
        os.kill(self.pid(index), number)

    def cut(self, index: int) -> None:
        self._docker("network", "disconnect", self._network, self.sandbox.names[index])

    def disturb(self, index: int) -> None:
        """Packets are lost, which TCP has to send again."""
        for chain in ("INPUT", "OUTPUT"):
            self._lose("--append", chain, index)

    def heal(self, index: int) -> None:
        name = self.sandbox.names[index]
        ip = self.sandbox.environ[f"LU_CFG_TIGERBEETLE_{index}_IP"]
        networks = self.sandbox.inspect(index)["NetworkSettings"]["Networks"]
        if self._network not in networks:
            # Its own address again, or it would be somebody else.
            self._docker("network", "connect", "--ip", ip, self._network, name)
        self._lose("--flush", "", index)

    def _lose(self, what: str, chain: str, index: int) -> None:
        rule = [chain, "-m", "statistic", "--mode", "random", "--probability", _LOSS, "-j", "DROP"]
        done = subprocess.run(
            [
                "nsenter",
                "--net",
                "--target",
                str(self.pid(index)),
                "iptables",
                what,
                *(rule if chain else ()),
            ],
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _docker(self, *arguments: str) -> None:
        done = docker(*arguments)
        assert done.returncode == 0, done.stderr


@contextmanager
def container_world(runs: Path) -> Iterator[ContainerWorld]:
    """A genuine cluster in Docker that is up; removed at the end."""
    with docker_sandbox("tigerbeetle") as made:
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        before = dict(os.environ)
        os.environ.update(made.environ)  # the engine's commands read the project's name there
        try:
            world = ContainerWorld(made, runs)
            try:
                yield world
            finally:
                world.keep_logs()
        finally:
            os.environ.clear()
            os.environ.update(before)
