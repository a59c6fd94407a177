"""The server: TCP connections in front of one replica."""

from __future__ import annotations

import socket
import time
from collections import deque

from ..protocol.aegis import Buffer
from ..protocol.wire import Command, DamagedError, EvictionReason, Frame
from .addresses import Address, listen
from .connection import Connection
from .faults import Faults
from .lies import Liar
from .log import Log, silent
from .loop import Loop
from .replica import Message, Query, Replica

CLIENTS_MAX = 32  # 8 in the pipeline and 24 queued, as a genuine server with default settings
CLIENTS_MAX_DEVELOPMENT = 8
PULSE_INTERVAL = 0.1  # seconds between looks for expired transfers while idle


class Server:
    """Serves one replica on one or several addresses, in one thread."""

    def __init__(
        self,
        replica: Replica,
        addresses: list[Address],
        *,
        clients_max: int = CLIENTS_MAX,
        faults: Faults | None = None,
        log: Log = silent,
    ) -> None:
        """Bind all addresses. Raises OSError."""
        self.replica = replica
        self.faults = faults or Faults()
        self._clients_max, self._log = clients_max, log
        self._loop = Loop()
        self._connections: set[Connection] = set()
        self._listeners: list[socket.socket] = []
        self._queries: deque[tuple[Connection, Query]] = deque()  # their steps are to come
        self.addresses = addresses
        self.open()

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
            self._loop.forget(listener)
            listener.close()
        self._listeners = []
        for connection in list(self._connections):
            connection.close()

    def run(self) -> None:
        """Serve until `stop`. Raises DataFileError when the journal fails."""
        self.replica.execute = Liar(self.replica.ledger, self.faults).execute
        self._loop.after(PULSE_INTERVAL, self._tick)
        if self.faults.stop_every:
            self._loop.after(self.faults.stop_every, self._fault_stop)
        try:
            self._loop.run()
        finally:
            self.shut()
            self._loop.close()

    def stop(self) -> None:
        """Let `run` return; safe from any thread."""
        self._loop.stop()

    def _admit(self, sock: socket.socket, peer: str) -> None:
        """Serve a new connection, or close it at once where there are too many.

        A relay's connections do not count, but only their first message shows what they are. So in
        a cluster of several replicas the limit is applied at the first message.
        """
        clients = sum(not connection.is_relay for connection in self._connections)
        full = clients >= self._clients_max
        if self.faults.strikes(self.faults.refuse) or (full and self.replica.replica_count == 1):
            self._log("info", "message_bus", f"connection from {peer} closed: clients={clients}")
            sock.close()
            return
        connection = Connection(
            self._loop, sock, peer, self.replica.cluster, self._on_message, self._on_close
        )
        connection.on_probation = full
        self._connections.add(connection)

    def _on_close(self, connection: Connection, reason: str) -> None:
        self._connections.discard(connection)
        if reason:
            self._log("warning", "message_bus", f"{connection.peer}: {reason}, closed")

    # -- messages ------------------------------------------------------------------------------

    def _on_message(
        self, connection: Connection, frame: Frame, header: Buffer, body: Buffer
    ) -> None:
        if frame.command == Command.PING:
            connection.is_relay = True
        elif connection.on_probation and not connection.is_relay:
            raise DamagedError("too many clients")
        connection.on_probation = False
        now = time.time_ns()
        if frame.command == Command.REQUEST and self.faults.strikes(self.faults.evict):
            client = bytes(header[160:176])
            self._send(connection, self.replica.evict(client, EvictionReason.NO_SESSION))
            return
        answer = self.replica.receive(frame, header, body, now)
        if isinstance(answer, Query):
            if not self._queries:
                self._loop.call(self._step)
            self._queries.append((connection, answer))
        else:
            self._answer(connection, answer)
        self.replica.pulse(now)

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
        if message and not self.faults.strikes(self.faults.drop_replies):
            self._send(connection, message)

    def _send(self, connection: Connection, message: Message) -> None:
        delay = self.faults.delay()
        if delay:
            self._loop.after(delay, lambda: connection.send(message))
        else:
            connection.send(message)

    # -- time ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Expire pending transfers while no request comes."""
        while self.replica.pulse(time.time_ns()):
            pass
        self._loop.after(PULSE_INTERVAL, self._tick)

    def _fault_stop(self) -> None:
        self._log("warning", "faults", f"stopped for {self.faults.stop_for} s on request")
        self.shut()
        self._loop.after(self.faults.stop_for, self._fault_start)

    def _fault_start(self) -> None:
        self.open()
        self._log("warning", "faults", "back")
        if self.faults.stop_every:
            self._loop.after(self.faults.stop_every, self._fault_stop)
