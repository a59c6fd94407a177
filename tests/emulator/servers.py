"""Servers as processes of their own: the emulator's command line and the genuine server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0
EMULATOR = (sys.executable, "-m", "tigerbeetle_emulator")


def free_port() -> int:
    """A port of 127.0.0.1 nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """One replica of a cluster, started from its data file; knows how to die and come back."""

    def __init__(
        self,
        program: tuple[str, ...],
        directory: Path,
        *,
        cluster: int = 0,
        replica: int = 0,
        ports: tuple[int, ...] = (),
        options: tuple[str, ...] = (),
        formatted: bool = False,
    ) -> None:
        self.ports = ports or (free_port(),)
        self.cluster, self.replica = cluster, replica
        self.program, self.options = program, options
        self.path = directory / f"{replica}.tigerbeetle"
        self.log_path = directory / f"{replica}.log"
        self.process: subprocess.Popen[bytes] | None = None
        if not formatted:
            done = subprocess.run(
                [
                    *program,
                    "format",
                    f"--cluster={cluster}",
                    f"--replica={replica}",
                    f"--replica-count={len(self.ports)}",
                    str(self.path),
                ],
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                check=False,
            )
            assert done.returncode == 0, done.stderr

    @property
    def addresses(self) -> str:
        """Of the whole cluster."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def log(self) -> str:
        """Everything it wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> ServerProcess:
        """Start and wait until it says that it listens."""
        said = self.log.count("listening on")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.program,
                    "start",
                    f"--addresses={self.addresses}",
                    *self.options,
                    str(self.path),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while self.log.count("listening on") == said:
            assert self.process.poll() is None, f"ended while starting:\n{self.log}"
            assert time.monotonic() < deadline, f"does not listen:\n{self.log}"
            time.sleep(0.01)
        return self

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None, "not started"
        return self.process.pid

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None, "not started"
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End it with SIGTERM, if it still runs."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def emulator(directory: Path, *options: str) -> Iterator[ServerProcess]:
    """A single emulator process, stopped at the end."""
    server = ServerProcess(EMULATOR, directory, options=options)
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def genuine(binary: str, directory: Path) -> Iterator[ServerProcess]:
    """A genuine single replica, stopped at the end and its data file removed (1 GiB)."""
    server = ServerProcess((binary,), directory, options=("--cache-grid=64MiB",))
    try:
        yield server.start()
    finally:
        server.stop()
        server.path.unlink(missing_ok=True)


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the emulator's command line; never raises for its exit code."""
    return subprocess.run(
        [*EMULATOR, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def format_file(path: Path, replica: int = 0, count: int = 1) -> subprocess.CompletedProcess[str]:
    """`format` a data file of cluster 5."""
    return typed(
        "format", "--cluster=5", f"--replica={replica}", f"--replica-count={count}", str(path)
    )
