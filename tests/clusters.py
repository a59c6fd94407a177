"""Deployments of a test's own: free ports, a directory of its own, stopped when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster import REPOSITORY, config
from cluster.config import PREFIX
from cluster.config.inventory import Deployment

DEPLOY_TIMEOUT_S = 240
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Sandbox:
    """One inventory deployed beside the user's: everything a command needs is in ``environ``."""

    inventory: str
    directory: Path
    ports: tuple[int, ...]
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The process environment that makes every command of this project use the sandbox."""
        addresses = ",".join(f"172.20.0.1{i}:{port}" for i, port in enumerate(self.ports))
        return (
            os.environ
            | {f"{PREFIX}{i}_PORT": str(port) for i, port in enumerate(self.ports)}
            | {f"{PREFIX}{i}_IP": f"172.20.0.1{i}" for i in range(len(self.ports))}
            | {f"{PREFIX}{i}_CONTAINER_NAME": f"tigerbeetle-{i}" for i in range(len(self.ports))}
            | {
                f"{PREFIX}ADDRESSES": addresses,
                f"{PREFIX}DATA_DIR": str(self.directory),
                f"{PREFIX}CACHE_GRID": "64MiB",
                "INVENTORY": self.inventory,
            }
            | self.overrides
        )

    @property
    def state_dir(self) -> Path:
        """Where the deployment keeps its files."""
        return self.directory / Path(self.inventory).stem

    @property
    def deployment(self) -> Deployment:
        """What the commands see, for tests that call the code itself."""
        name = Path(self.inventory).stem
        return Deployment(
            name=name,
            engine="emulator" if name == "emulator" else "tigerbeetle",
            runtime="process",
            cluster=config.load(environ=self.environ).on_loopback(),
            state_dir=self.state_dir,
        )

    def run(self, *command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of this project's environment, such as ``pytest`` or ``make``."""
        program = _BIN / command[0]
        path = str(program) if program.exists() else command[0]
        return subprocess.run(
            [path, *command[1:]],
            cwd=REPOSITORY,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        """Deploy, as ``make up`` does."""
        return self.pyinfra("deploy.py")

    def down(self) -> subprocess.CompletedProcess[str]:
        """Stop, as ``make down`` does."""
        return self.pyinfra("tasks.replica.stop")

    def pyinfra(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``pyinfra --yes INVENTORY ARGUMENTS``."""
        return self.run("pyinfra", "--yes", self.inventory, *arguments, timeout_s=DEPLOY_TIMEOUT_S)

    def supervise(self, *action: str) -> None:
        """``supervisorctl ACTION``, behind the project's back; what it ends with is not checked."""
        self.run("supervisorctl", "-c", str(self.state_dir / "supervisord.conf"), *action)

    def pids(self) -> list[int]:
        """The replicas' process ids, from their pid files."""
        files = sorted(self.state_dir.glob("replica-*/replica.pid"))
        return [int(file.read_text()) for file in files]

    def data_file(self, index: int) -> Path:
        """Replica ``index``'s data file."""
        return self.state_dir / f"replica-{index}" / f"0_{index}.tigerbeetle"


@contextmanager
def sandbox(inventory: str, replicas: int = 3, /, **overrides: str) -> Iterator[Sandbox]:
    """A sandbox whose replicas are stopped, and whose files are removed, at the end."""
    # A short path: supervisor's socket must fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="ws-") as directory:
        made = Sandbox(inventory, Path(directory), free_ports(replicas), overrides)
        try:
            yield made
        finally:
            stopped = made.down()
            assert stopped.returncode == 0, stopped.stderr[-2000:]


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of 127.0.0.1 that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return tuple(s.getsockname()[1] for s in sockets)
    finally:
        for s in sockets:
            s.close()
