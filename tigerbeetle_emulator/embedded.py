"""The emulator inside another program's process: `tigerbeetle_emulator.run()`."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from .ledger.ledger import Ledger
from .protocol.records import NANOSECONDS, TIMESTAMP_MAX
from .server.addresses import HOST_DEFAULT, REPLICAS_MAX, Address, parse
from .server.clock import Clock
from .server.faults import Faults
from .server.journal import DataFileError, FileJournal, Identity, format_file
from .server.limits import limits
from .server.replica import RELEASE_NUMBER, Replica
from .server.server import CLIENTS_MAX, Server

ADDRESS_VARIABLE = "TB_ADDRESS"  # where TigerBeetle's own samples look
_JOIN_SECONDS = 10.0
_STEP_MAX = 1e10  # seconds: beyond the last timestamp, and still a number of ns
_T = TypeVar("_T")


class Snapshot(NamedTuple):
    """A ledger as it was, and its clock. Opaque: only `Emulator.restore` reads it."""

    ledger: bytes
    timestamp: int
    ahead: int


class Emulator:
    """A running emulator. `address` is what a client's constructor takes.

    Every method may be called while clients are at work: it happens between two of their requests.
    In a process forked from the one that made it, only `address` and `cluster_id` serve; the
    methods raise RuntimeError.
    """

    def __init__(
        self,
        replica: Replica,
        addresses: list[Address],
        faults: Faults,
        clock: Clock,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        self.replica, self.faults = replica, faults
        self._addresses, self._clock, self._clients_max = addresses, clock, clients_max
        self._process = os.getpid()
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

    # -- there or not ----------------------------------------------------------------------------

    def start(self) -> None:
        """Listen again after `stop`, on the same ports, with the same ledger."""
        self._refuse_in_a_child()
        if self._server:
            return
        self._server = Server(
            self.replica,
            self._addresses,
            clients_max=self._clients_max,
            faults=self.faults,
            clock=self._clock,
        )
        self._addresses = self._server.addresses
        self._thread = threading.Thread(
            target=self._server.run, name="tigerbeetle-emulator", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Drop all connections and stop listening, as a crash would; the ledger is kept."""
        self._refuse_in_a_child()
        server, self._server = self._server, None
        if server and self._thread:
            server.stop()
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                raise TimeoutError(f"the emulator still serves after {_JOIN_SECONDS} s")

    # -- time ------------------------------------------------------------------------------------

    def advance(self, by: float | timedelta) -> None:
        """Let so much time (seconds) pass at once: what expires meanwhile does so now, in order.

        Raises ValueError or TypeError for what is no time to come, and RuntimeError if the clock
        follows the test's.
        """
        step = _nanoseconds(by)
        if self._clock.follows:
            raise RuntimeError(
                "advance: expected a clock of the server's own, found one that follows the "
                "test's (clock='test'): move that, with freezegun or time-machine"
            )
        self._do(lambda: self._advance(by, step))

    def _advance(self, by: float | timedelta, step: int) -> None:
        if self._clock.now() + step > TIMESTAMP_MAX:
            raise ValueError(f"advance: expected a time before 2262-04-11, found {by} from now")
        self._clock.ahead += step
        self.replica.catch_up(self._clock.now())

    # -- the ledger ------------------------------------------------------------------------------

    def reset(self) -> None:
        """Empty the ledger, and put a clock that was advanced back.

        Clients stay connected and keep their sessions. Raises RuntimeError if the ledger has a
        data file.
        """
        self.restore(Snapshot(pickle.dumps(Ledger()), timestamp=0, ahead=0))

    def snapshot(self) -> Snapshot:
        """The ledger and its clock as they are now, for `restore`: as often as you like."""
        return self._do(self._snapshot)

    def _snapshot(self) -> Snapshot:
        ledger = pickle.dumps(self.replica.ledger, pickle.HIGHEST_PROTOCOL)
        return Snapshot(ledger, self.replica.timestamp, self._clock.ahead)

    def restore(self, snapshot: Snapshot) -> None:
        """Put ledger and clock back to what `snapshot` returned, of this emulator or another.

        Clients stay connected and keep their sessions. Raises RuntimeError if the ledger has a
        data file.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"restore: expected what snapshot() returned, found {snapshot!r}")
        if self.replica.journal:
            raise RuntimeError(
                "reset and restore: expected a ledger in memory, found one with a data file "
                f"({self.replica.journal.path}): leave `path` out, or make a new file"
            )
        ledger = pickle.loads(snapshot.ledger)  # noqa: S301 this class has dumped it
        self._do(lambda: self._take_over(ledger, snapshot))

    def _take_over(self, ledger: Ledger, snapshot: Snapshot) -> None:
        self.replica.take_over(ledger, snapshot.timestamp)
        self._clock.ahead = snapshot.ahead
        if self._server:
            self._server.lie()

    def _do(self, action: Callable[[], _T]) -> _T:
        """Take an action between two requests; returns and raises what it does."""
        self._refuse_in_a_child()
        return self._server.do(action) if self._server else action()

    def _refuse_in_a_child(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this emulator serves in process {self._process}, which forked this one: "
                "a child can be its client, but not steer it"
            )


def _nanoseconds(by: float | timedelta) -> int:
    """A step of time that is not negative. Raises ValueError, TypeError."""
    seconds = by.total_seconds() if isinstance(by, timedelta) else by
    if not isinstance(seconds, int | float):
        raise TypeError(f"advance: expected seconds or a timedelta, found {by!r}")
    if not seconds >= 0:  # which no comparison with nan is
        raise ValueError(f"advance: expected 0 seconds or more, found {by}")
    return round(min(seconds, _STEP_MAX) * NANOSECONDS)


@contextlib.contextmanager
def run(
    *,
    cluster: int = 0,
    replicas: int | None = None,
    port: int | None = None,
    addresses: str | None = None,
    path: str | Path | None = None,
    faults: Faults | None = None,
    clock: Literal["own", "test"] = "own",
    development: bool = False,
    limit_pipeline_requests: int | None = None,
    limit_request: int | None = None,
    export: bool = False,
) -> Iterator[Emulator]:
    """Serve an emulator from a thread of this process while the `with` block lasts.

    It listens on a free port of 127.0.0.1, or on as many as it has `replicas`, or on this `port`,
    or on these `addresses`, written as for the command line. Without `path` the ledger lives in
    memory; with it, in that data file, which is created if need be and holds the ledger of the
    previous run otherwise. `clock="test"` follows the time that freezegun or time-machine give the
    test, instead of the machine's. `development`, `limit_pipeline_requests` and `limit_request`
    (bytes) are the genuine server's. `export` sets TB_ADDRESS meanwhile.

    Raises ValueError for arguments that the genuine server would refuse, OSError for a port that
    is taken, DataFileError for a file of another cluster.
    """
    if clock not in ("own", "test"):
        raise ValueError(f"clock: expected 'own' or 'test', found {clock!r}")
    if not 0 <= cluster < 1 << 128:
        raise ValueError(f"cluster: expected an unsigned 128-bit integer, found {cluster}")
    places = _places(replicas, port, addresses)
    bounds = limits(
        development=development, pipeline_requests=limit_pipeline_requests, request=limit_request
    )
    owner = os.getpid()
    with contextlib.ExitStack() as held:
        journal = _journal(Path(path), cluster, len(places)) if path else None
        replica = Replica(cluster, len(places), journal, bounds.request_size)
        time = Clock(follows=clock == "test")
        if journal:
            held.callback(journal.close)
            for entry in journal.replay():
                replica.replay(entry)
            time.not_before(replica.timestamp)
        emulator = _listening(replica, places, faults or Faults(), time, bounds.clients)
        held.callback(emulator.stop)
        if export:
            held.enter_context(_exported(emulator.address))
        try:
            yield emulator
        finally:
            if os.getpid() != owner:
                held.pop_all()  # a forked child that unwinds: all this is its parent's


def _places(replicas: int | None, port: int | None, addresses: str | None) -> list[Address]:
    """Where to listen; port 0 is a free one. Raises ValueError."""
    if addresses is not None:
        places = parse(addresses)
        if port is not None or replicas not in (None, len(places)):
            raise ValueError(
                f"addresses: expected neither port nor another number of replicas beside "
                f"{addresses!r}, found port={port}, replicas={replicas}"
            )
        return places
    count = 1 if replicas is None else replicas
    if not 1 <= count <= REPLICAS_MAX:
        raise ValueError(f"replicas: expected 1..{REPLICAS_MAX}, found {replicas}")
    if port is not None and count > 1:
        raise ValueError(f"port: expected addresses for {count} replicas, found one port, {port}")
    if not 0 <= (port or 0) <= 65535:
        raise ValueError(f"port: expected 0..65535, found {port}")
    return [Address(HOST_DEFAULT, port or 0)] * count


def _listening(
    replica: Replica, places: list[Address], faults: Faults, clock: Clock, clients_max: int
) -> Emulator:
    try:
        return Emulator(replica, places, faults, clock, clients_max)
    except OSError as error:
        where = ",".join(map(str, places))
        raise OSError(
            error.errno,
            f"expected to listen on {where}, found: {error.strerror}; without `port` and "
            "`addresses` a free port is taken",
        ) from error


@contextlib.contextmanager
def _exported(address: str) -> Iterator[None]:
    """Set TB_ADDRESS, and put back what it was."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ADDRESS_VARIABLE, None)
        else:
            os.environ[ADDRESS_VARIABLE] = before


def _journal(path: Path, cluster: int, replicas: int) -> FileJournal:
    expected = Identity(cluster, 0, replicas, RELEASE_NUMBER)
    if not path.exists():
        format_file(path, expected)
    journal = FileJournal(path)
    if journal.identity[:3] != expected[:3]:
        journal.close()
        raise DataFileError(f"{path}: expected {expected}; this file is of {journal.identity}")
    return journal
