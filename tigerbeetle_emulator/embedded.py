"""The emulator inside another program's process: `tigerbeetle_emulator.run()`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from .server.addresses import Address
from .server.faults import Faults
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.replica import RELEASE_NUMBER, Replica
from .server.server import CLIENTS_MAX, Server

_JOIN_SECONDS = 10.0


class Emulator:
    """A running emulator. `address` is what a client's constructor takes."""

    def __init__(self, replica: Replica, addresses: list[Address], faults: Faults) -> None:
        self.replica, self.faults = replica, faults
        self._addresses = addresses
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self.start()

    @property
    def cluster_id(self) -> int:
        """The cluster id clients must give."""
        return int.from_bytes(self.replica.cluster, "little")

    @property
    def address(self) -> str:
        """All addresses, comma-separated."""
        return ",".join(map(str, self._addresses))

    def start(self) -> None:
        """Listen again after `stop`, on the same ports, with the same ledger."""
        if self._server:
            return
        self._server = Server(
            self.replica, self._addresses, clients_max=CLIENTS_MAX, faults=self.faults
        )
        self._addresses = self._server.addresses
        self._thread = threading.Thread(
            target=self._server.run, name="tigerbeetle-emulator", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Drop all connections and stop listening, as a crash would; the ledger is kept."""
        server, self._server = self._server, None
        if server and self._thread:
            server.stop()
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                raise TimeoutError(f"the emulator still serves after {_JOIN_SECONDS} s")


@contextlib.contextmanager
def run(
    *,
    cluster: int = 0,
    replicas: int = 1,
    path: str | Path | None = None,
    faults: Faults | None = None,
) -> Iterator[Emulator]:
    """Serve an emulator from a thread of this process while the `with` block lasts.

    `replicas` is how many addresses it listens on, all on free ports of 127.0.0.1. Without `path`
    the ledger lives in memory; with it, in that data file, which is created if need be and holds
    the ledger of the previous run otherwise. Raises DataFileError for a file of another cluster.
    """
    journal = _journal(Path(path), cluster, replicas) if path else None
    replica = Replica(cluster, replicas, journal)
    if journal:
        for entry in journal.replay():
            replica.replay(entry)
    emulator = Emulator(replica, [Address("127.0.0.1", 0)] * replicas, faults or Faults())
    try:
        yield emulator
    finally:
        emulator.stop()
        if journal:
            journal.close()


def _journal(path: Path, cluster: int, replicas: int) -> FileJournal:
    expected = Identity(cluster, 0, replicas, RELEASE_NUMBER)
    if not path.exists():
        format_file(path, expected)
    journal = FileJournal(path)
    if journal.identity[:3] != expected[:3]:
        journal.close()
        raise DataFileError(f"{path}: expected {expected}; this file is of {journal.identity}")
    return journal
