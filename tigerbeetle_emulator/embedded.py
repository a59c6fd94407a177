"""The emulator inside another program's process, as an object to steer."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple, TypeVar

from .ledger.ledger import Ledger
from .protocol.records import NANOSECONDS, TIMESTAMP_MAX
from .server.addresses import Address
from .server.clock import Clock
from .server.faults import Faults, checked
from .server.log import logger
from .server.replica import Replica
from .server.server import CLIENTS_MAX, Server

_JOIN_SECONDS = 10.0
_STEP_MAX = 1e10  # seconds: beyond the last timestamp, and still a number of ns
_T = TypeVar("_T")


class Snapshot(NamedTuple):
    """A ledger as it was, and its clock. Opaque: only `Emulator.restore` reads it."""

    ledger: bytes
    timestamp: int
    ahead: int


class EmulatorDiedError(RuntimeError):
    """The emulator's thread has ended by an error, which is the cause of this one."""


class Emulator:
    """A running emulator. `address` is what a client's constructor takes.

    Every method may be called while clients are at work: it happens between two of their requests.
    In a process forked from the one that made it, only `address` and `cluster_id` serve; the
    methods raise RuntimeError. If its thread ends by an error, every use raises EmulatorDiedError,
    until `start`.
    """

    def __init__(
        self,
        replica: Replica,
        addresses: list[Address],
        faults: Faults,
        clock: Clock,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        self.replica, self._faults = replica, checked(faults)
        self._is_death_known = False
        self._addresses, self._clock, self._clients_max = addresses, clock, clients_max
        self._process = os.getpid()
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
        if error and self._thread:
            self._thread.join(_JOIN_SECONDS)  # what it logs of its end comes first
            self._is_death_known = True
            raise EmulatorDiedError(
                f"the emulator has stopped serving: {error!r}; start() brings it back"
            ) from error

    # -- there or not ----------------------------------------------------------------------------

    def start(self) -> None:
        """Listen again after `stop` or an error, on the same ports, with the same ledger."""
        self._refuse_in_a_child()
        if self._server and not self._server.error:
            return
        if self._thread:
            self._thread.join(_JOIN_SECONDS)
        self._server = Server(
            self.replica,
            self._addresses,
            clients_max=self._clients_max,
            faults=self._faults,
            clock=self._clock,
        )
        self._is_death_known = False
        self._addresses = self._server.addresses
        self._thread = threading.Thread(
            target=_serve, args=[self._server], name="tigerbeetle-emulator", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Drop all connections and stop listening, as a crash would; the ledger is kept."""
        self._refuse_in_a_child()
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
        self._raise_death()
        return self._server.do(action) if self._server else action()

    def _refuse_in_a_child(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this emulator serves in process {self._process}, which forked this one: "
                "a child can be its client, but not steer it"
            )


def _serve(server: Server) -> None:
    """What the thread does: a client cannot tell an error here from a server that is slow."""
    try:
        server.run()
    except BaseException:
        logger("main").exception("the emulator has stopped serving, its clients wait for ever")


def _nanoseconds(by: float | timedelta) -> int:
    """A step of time that is not negative. Raises ValueError, TypeError."""
    seconds = by.total_seconds() if isinstance(by, timedelta) else by
    if not isinstance(seconds, int | float):
        raise TypeError(f"advance: expected seconds or a timedelta, found {by!r}")
    if not seconds >= 0:  # which no comparison with nan is
        raise ValueError(f"advance: expected 0 seconds or more, found {by}")
    return round(min(seconds, _STEP_MAX) * NANOSECONDS)
