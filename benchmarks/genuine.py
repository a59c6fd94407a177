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

    def __init__(self, binary: Path, *, count: int = 3) -> None:
        self.binary, self.count = binary, count
        self._processes: list[subprocess.Popen[bytes]] = []

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
                self._start(index)
            wait_until(self._listening, what="the replicas to listen", timeout_s=START_TIMEOUT_S)
            time.sleep(2)  # and to elect a primary: the next client's first request waits anyway
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait(60)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def addresses(self) -> str:
        """As clients and replicas take them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def _start(self, index: int) -> None:
        with (self.directory / f"replica-{index}.log").open("ab") as log:
            command = [
                *(str(self.binary), "start", f"--addresses={self.addresses}"),
                *("--cache-grid=512MiB", "--experimental", f"--limit-storage={LIMIT_STORAGE}"),
                str(self._file(index)),
            ]
            self._processes.append(
                subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
            )

    def _listening(self) -> tuple[bool, str]:
        closed = [port for port in self.ports if not _accepts(port)]
        return not closed, f"ports {closed} do not listen yet"

    def _file(self, index: int) -> Path:
        return self.directory / f"0_{index}.tigerbeetle"

    def _format(self, index: int) -> None:
        command = [
            *(str(self.binary), "format", f"--cluster={CLUSTER_ID}", f"--replica={index}"),
            *(f"--replica-count={self.count}", str(self._file(index))),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=START_TIMEOUT_S)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
