"""The server: TCP connections in front of one replica."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..protocol.aegis import Buffer
from ..protocol.wire import COMMAND_AT, Command, EvictionReason, Frame
from .addresses import Address, listen
from .clock import Clock
from .connection import Connection
from .faults import Faults
from .lies import Liar
from .log import logger
from .loop import Loop
from .notices import Notices, crowded
from .outages import Outages
from .replica import PULSE_INTERVAL, Message, Query, Replica

CLIENTS_MAX = 32  # 8 in the pipeline and 24 queued, as a genuine server with default settings
CLIENTS_MAX_DEVELOPMENT = 8
_DO_SECONDS = 60.0  # a snapshot of millions of transfers takes seconds
_TICK = PULSE_INTERVAL / 1e9  # seconds
_LOG = logger("message_bus")

T = TypeVar("T")


class Server:
    """Serves one replica on one or several addresses, in one thread."""

    def __init__(
        self,
        replica: Replica,
        addresses: list[Address],
        *,
        clients_max: int = CLIENTS_MAX,
        faults: Faults | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Bind all addresses. Raises OSError."""
        self.replica = replica
        self.faults = faults or Faults()
        #: What ended `run`, unless `stop` did.
        self.error: BaseException | None = None
        self._clock = clock or Clock()
        self._clients_max, self._notices = clients_max, Notices("message_bus")
        self._loop = Loop()
        self._outages = Outages(lambda: self.faults, self._loop.after, self.shut, self.open)
        self._connections: set[Connection] = set()
        self._listeners: list[socket.socket] = []
        self._queries: deque[tuple[Connection, Query]] = deque()  # their steps are to come
        self.addresses = addresses
        try:
            self.open()
        except OSError:
            self._loop.close()
            raise

    # -- listening -----------------------------------------------------------------------------

    def open(self) -> None:
        """Start listening (again, on the same ports). Raises OSError."""
        try:
            for address in self.addresses:
                self._listeners.append(listen(address))
        except OSError:
            self.shut()
            raise
        self.addresses = [Address(*listener.getsockname()[:2]) for listener in self._listeners]
        for listener in self._listeners:
            self._loop.accept_from(listener, self._admit)

    def shut(self) -> None:
        """Stop listening and drop every connection; the replica keeps its state."""
        for listener in self._listeners:
            self._loop.drop(listener)
        self._listeners = []
        for connection in list(self._connections):
            connection.close()

    def run(self) -> None:
        """Serve until `stop`. Raises DataFileError when the journal fails."""
        self.lie()
        try:
            self._tick()
            self._loop.run()
        except BaseException as error:
            self.error = error  # known before any client can notice
            raise
        finally:
            self.shut()
            self._loop.close()

    def stop(self) -> None:
        """Let `run` return; safe from any thread."""
        self._loop.stop()

    def lie(self) -> None:
        """Answer from the replica's ledger as it is, but for the lies that are asked for."""
        self.replica.execute = Liar(self.replica.ledger, lambda: self.faults).execute

    def do(self, action: Callable[[], T]) -> T:
        """Have the serving thread do something between two requests; for any other thread.

        Returns and raises what the action does, and TimeoutError if it is not done in time.
        """
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        self._loop.call(act)
        return done.result(_DO_SECONDS)

    def _admit(self, sock: socket.socket, peer: str) -> None:
        """Serve a new connection, or close it at once where there are too many.

        A relay's connections do not count, but only their first message shows what they are. So in
        a cluster of several replicas the limit is applied at the first message.
        """
        clients = sum(not connection.is_relay for connection in self._connections)
        full = clients >= self._clients_max
        refused = self.faults.strikes(self.faults.refuse)
        if refused or (full and self.replica.replica_count == 1):
            if refused:
                _LOG.info("connection from %s closed on request", peer)
            else:
                self._notices.tell(crowded(self._clients_max))
            self._loop.drop(sock)
            return
        connection = Connection(
            self._loop, sock, peer, self.replica.cluster, self._on_message, self._on_close
        )
        connection.on_probation = full
        self._connections.add(connection)

    def _on_close(self, connection: Connection, reason: str) -> None:
        self._connections.discard(connection)
        if not connection.on_probation:
            self._notices.forget(crowded(self._clients_max))
        if reason:
            self._notices.tell(reason)

    # -- messages ------------------------------------------------------------------------------

    def _on_message(
        self, connection: Connection, frame: Frame, header: Buffer, body: Buffer
    ) -> None:
        if frame.command == Command.PING:
            connection.is_relay = True
        elif connection.on_probation and not connection.is_relay:
            connection.close(crowded(self._clients_max))
            return
        connection.on_probation = False
        now = self._clock.now()
        self.replica.catch_up(now)
        if frame.command == Command.REQUEST and self.faults.strikes(self.faults.evict):
            client = bytes(header[160:176])
            _LOG.info("client %x evicted on request", int.from_bytes(client, "little"))
            self._send(connection, self.replica.evict(client, EvictionReason.NO_SESSION))
            return
        answer = self.replica.receive(frame, header, body, now)
        if isinstance(answer, Query):
            if not self._queries:
                self._loop.call(self._step)
            self._queries.append((connection, answer))
        elif answer:
            if answer[0][COMMAND_AT] == Command.EVICTION:
                self._notices.evicted(frame, bytes(answer[0]))
            self._answer(connection, answer)
        else:
            _LOG.debug("%s: message dropped, command %d", connection.peer, frame.command)

    def _step(self) -> None:
        """Take one step of one query, however many there are; the other clients come next."""
        connection, query = self._queries.popleft()
        answer = query.step()
        if answer:
            self._answer(connection, answer)
        else:
            self._queries.append((connection, query))
        if self._queries:
            self._loop.call(self._step)

    def _answer(self, connection: Connection, message: Message) -> None:
        if self.faults.strikes(self.faults.drop_replies):
            _LOG.info("%s: reply dropped on request", connection.peer)
        else:
            self._send(connection, message)

    def _send(self, connection: Connection, message: Message) -> None:
        delay = self.faults.delay()
        if delay:
            self._loop.after(delay, lambda: connection.send(message))
        else:
            connection.send(message)

    # -- time ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Expire pending transfers while no request comes; come and go as the faults now ask."""
        self._outages.follow()
        self.replica.catch_up(self._clock.now())
        self._loop.after(_TICK, self._tick)
