"""A throw-away cluster on this machine: genuine replicas, fresh data files, free ports."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cluster.tigerbeetle.waiting import wait_until

CLUSTER_ID = 0  # the only one `tigerbeetle benchmark` talks to
START_TIMEOUT_S = 60
#: A run fills about 1.1 kB a transfer: enough for 20 million, and no more than the disk has.
LIMIT_STORAGE = "24GiB"


class Replicas:
    """Three replicas, or one; a context manager that leaves neither process nor file behind.

    ``binary`` may also be the emulator, which has the same command line.
    """

    def __init__(self, binary: Path, *, count: int = 3, cache_grid: str = "512MiB") -> None:
        self.binary, self.count, self.cache_grid = binary, count, cache_grid
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Replicas:
        self.directory = Path(tempfile.mkdtemp(prefix="ws-genuine-"))
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(self.count)]
        self.ports = [s.getsockname()[1] for s in sockets]
        for held in sockets:
            held.close()
        try:
            for index in range(self.count):
                self._format(index)
            for index in range(self.count):
                self.start(index)
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for index in list(self._processes):
            self.kill(index)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def addresses(self) -> str:
        """As clients and replicas take them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self, index: int) -> None:
        """Start one replica; ``wait`` waits for it."""
        with (self.directory / f"replica-{index}.log").open("ab") as log:
            self._processes[index] = subprocess.Popen(
                [
                    *(str(self.binary), "start", f"--addresses={self.addresses}"),
                    *(f"--cache-grid={self.cache_grid}", "--experimental"),
                    f"--limit-storage={LIMIT_STORAGE}",
                    str(self._file(index)),
                ],
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    def kill(self, index: int) -> None:
        """SIGKILL one replica."""
        process = self._processes.pop(index)
        process.kill()
        process.wait(60)

    def wait(self) -> None:
        """Until every running replica's port accepts."""

        def listening() -> tuple[bool, str]:
            closed = [i for i in self._processes if not _accepts(self.ports[i])]
            return not closed, f"replicas {closed} do not listen yet"

        wait_until(listening, what="the replicas to listen", timeout_s=START_TIMEOUT_S)
        time.sleep(2)  # and to have elected a primary: the next client's first request waits anyway

    def primary(self) -> int:
        """The primary, from the replicas' logs: who was last to say so."""
        latest: tuple[str, int] = ("", 0)
        for index in range(self.count):
            for line in (self.directory / f"replica-{index}.log").read_text().splitlines():
                if "transition_to_normal" in line and line.rstrip().endswith("primary"):
                    latest = max(latest, (line.split(" ", 2)[0] + line.split(" ", 2)[1], index))
        return latest[1]

    def _file(self, index: int) -> Path:
        return self.directory / f"0_{index}.tigerbeetle"

    def _format(self, index: int) -> None:
        identity = [
            f"--cluster={CLUSTER_ID}",
            f"--replica={index}",
            f"--replica-count={self.count}",
        ]
        command = [str(self.binary), "format", *identity, str(self._file(index))]
        subprocess.run(command, check=True, capture_output=True, timeout=START_TIMEOUT_S)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
