"""The emulator inside another program's process: `tigerbeetle_emulator.run()`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from .server.addresses import Address
from .server.faults import Faults, checked
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.log import logger
from .server.replica import RELEASE_NUMBER, Replica
from .server.server import CLIENTS_MAX, Server

_JOIN_SECONDS = 10.0


class EmulatorDiedError(RuntimeError):
    """The emulator's thread has ended by an error, which is the cause of this one."""


class Emulator:
    """A running emulator. `address` is what a client's constructor takes.

    If its thread ends by an error, every use raises EmulatorDiedError, until `start`.
    """

    def __init__(self, replica: Replica, addresses: list[Address], faults: Faults) -> None:
        self.replica, self._faults = replica, checked(faults)
        self._is_death_known = False
        self._addresses = addresses
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self.start()

    @property
    def cluster_id(self) -> int:
        """The cluster id clients must give."""
        self._raise_death()
        return int.from_bytes(self.replica.cluster, "little")

    @property
    def address(self) -> str:
        """All addresses, comma-separated."""
        self._raise_death()
        return ",".join(map(str, self._addresses))

    @property
    def faults(self) -> Faults:
        """What goes wrong on request; fields and all may be assigned while it runs."""
        self._raise_death()
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._raise_death()
        self._faults = checked(faults)
        if self._server:
            self._server.faults = faults

    def _raise_death(self) -> None:
        error = self._server and self._server.error
        if error:
            self._is_death_known = True
            raise EmulatorDiedError(
                f"the emulator has stopped serving: {error!r}; start() brings it back"
            ) from error

    def start(self) -> None:
        """Listen again after `stop` or an error, on the same ports, with the same ledger."""
        if self._server and not self._server.error:
            return
        if self._thread:
            self._thread.join(_JOIN_SECONDS)
        self._server = Server(
            self.replica, self._addresses, clients_max=CLIENTS_MAX, faults=self._faults
        )
        self._is_death_known = False
        self._addresses = self._server.addresses
        self._thread = threading.Thread(
            target=_serve, args=[self._server], name="tigerbeetle-emulator", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Drop all connections and stop listening, as a crash would; the ledger is kept."""
        self._raise_death()
        self.close()

    def close(self) -> None:
        """Stop for good. Raises EmulatorDiedError unless the caller knows that it had ended."""
        if not self._is_death_known:
            self._raise_death()
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
    given = Faults() if faults is None else checked(faults)
    journal = _journal(Path(path), cluster, replicas) if path else None
    replica = Replica(cluster, replicas, journal)
    if journal:
        for entry in journal.replay():
            replica.replay(entry)
    emulator = Emulator(replica, [Address("127.0.0.1", 0)] * replicas, given)
    try:
        yield emulator
    finally:
        try:
            emulator.close()
        finally:
            if journal:
                journal.close()


def _serve(server: Server) -> None:
    """What the thread does: a client cannot tell an error here from a server that is slow."""
    try:
        server.run()
    except BaseException:
        logger("main").exception("the emulator has stopped serving, its clients wait for ever")


def _journal(path: Path, cluster: int, replicas: int) -> FileJournal:
    expected = Identity(cluster, 0, replicas, RELEASE_NUMBER)
    if not path.exists():
        format_file(path, expected)
    journal = FileJournal(path)
    if journal.identity[:3] != expected[:3]:
        journal.close()
        raise DataFileError(f"{path}: expected {expected}; this file is of {journal.identity}")
    return journal
