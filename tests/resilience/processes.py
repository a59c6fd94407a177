"""The process inventory, deployed as users do, with every network link in a test's hands."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.runtimes.process import Process
from tests.clusters import Sandbox, sandbox
from tests.links import Links
from tests.resilience.world import World

#: Of the disk that can be filled: a formatted data file takes 1,089 MiB, and grows under load.
DISK_MIB = 3072
DISK_OF = 2


class ProcessWorld(World):
    """Supervised processes. Replica 2's directory is a disk of its own where one can be mounted."""

    def __init__(self, sandbox: Sandbox, runs: Path, disk: Path | None) -> None:
        super().__init__(sandbox, sandbox.deployment, runs)
        self.disk = disk
        self.links = Links([replica.port for replica in self.replicas], clients=True)
        self._put_links_between()

    def _put_links_between(self) -> None:
        """Give each replica its own list of addresses: the others' are proxies."""
        path = Process(self.deployment).config_path
        parts = re.split(r"(?=\[program:)", path.read_text())
        path.write_text(parts[0] + "".join(self._linked(part) for part in parts[1:]))
        self._supervisorctl("update")

    def _linked(self, program: str) -> str:
        index = int(re.match(r"\[program:replica-(\d+)\]", program)[1])  # type: ignore[index]
        own = self._addresses(index)
        return program.replace(self.deployment.cluster.addresses, own)

    def _addresses(self, node: int) -> str:
        ports = (
            r.port if r.index == node else self.links.port[node, r.index] for r in self.replicas
        )
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    def _supervisorctl(self, *arguments: str) -> None:
        control = ["supervisorctl", "-c", str(Process(self.deployment).config_path)]
        done = self.sandbox.run(*control, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def client_addresses(self) -> str:
        return self._addresses(len(self.replicas))

    @property
    def own_addresses(self) -> str:
        return self.deployment.cluster.addresses

    def pid(self, index: int) -> int:
        states = Process(self.deployment).states() or {}
        return states[index].pid if index in states else 0

    def signal(self, index: int, number: int) -> None:
        os.kill(self.pid(index), number)

    def cut(self, index: int) -> None:
        self.links.isolate(index)

    def disturb(self, index: int) -> None:
        self.links.disturb(index, delay_s=0.05, loss=0.05)

    def heal(self, index: int) -> None:
        self.links.heal()

    def fill_disk(self) -> None:
        """Leave nothing of the small disk."""
        assert self.disk
        ballast = self.disk / "ballast"
        with ballast.open("ab") as file:
            size = os.statvfs(self.disk)
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, size.f_bavail * size.f_frsize - (1 << 20))
            while True:
                try:
                    os.write(file.fileno(), bytes(64 << 10))
                except OSError:
                    return

    def free_disk(self) -> None:
        """Give it back."""
        assert self.disk
        (self.disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """End the links, when the replicas have ended."""
        self.links.close()


@contextmanager
def process_world(runs: Path) -> Iterator[ProcessWorld]:
    """A cluster that is up; stopped and removed at the end."""
    with sandbox("inventories/process.py") as made:
        disk = made.state_dir / f"replica-{DISK_OF}"
        with small_disk(made.directory, disk) as is_mounted:
            world: ProcessWorld | None = None
            try:
                done = made.up()
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
                world = ProcessWorld(made, runs, disk if is_mounted else None)
                yield world
            finally:
                if world:
                    world.keep_logs()
                made.down()
                if world:
                    world.close()


@contextmanager
def small_disk(directory: Path, at: Path) -> Iterator[bool]:
    """A file system in a file, mounted at ``at``; False where this machine does not let us."""
    image = directory / "disk.img"
    at.mkdir(parents=True, mode=0o700)
    at.parent.chmod(0o700)
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    commands = (
        ["mkfs.ext4", "-q", "-m", "0", str(image)],
        ["mount", "-o", "loop", str(image), str(at)],
    )
    try:
        is_mounted = all(
            subprocess.run(command, capture_output=True, check=False).returncode == 0
            for command in commands
        )
    except FileNotFoundError:
        is_mounted = False
    if is_mounted:
        at.chmod(0o700)
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(at)], check=True, timeout=60)
