"""The replica: which requests are executed, repeated, dropped or answered with an eviction.

It does no I/O for requests: it owns sessions, operation numbers and the ledger, is told the time,
and returns what to send. Every change of its state is written to the journal first, so replaying
the journal rebuilds it, down to the stored replies.

A query of a large ledger is answered in steps, so that no other client waits for it: it is executed
when it comes, like any request, but its reply is complete some steps later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..ledger.ledger import EXPIRED_PER_PULSE, Ledger
from ..ledger.queries import IN_STEPS
from ..ledger.steps import Steps
from ..protocol.aegis import Buffer
from ..protocol.operations import OPERATIONS, body_valid, timestamps_needed
from ..protocol.wire import (
    HEADER_SIZE,
    MESSAGE_SIZE_MAX,
    OPERATION_NOOP,
    OPERATION_REGISTER,
    REGISTER_BODY_SIZE,
    RELEASE,
    RELEASE_CLIENT_MIN,
    Author,
    Command,
    EvictionReason,
    Frame,
    PingClient,
    Request,
    build_eviction,
    build_pong,
    build_reply,
    parse_ping_client,
    parse_request,
    read_frame,
    release_number,
)

if TYPE_CHECKING:
    from .journal import FileJournal

SESSIONS_MAX = 64
RELEASE_NUMBER = release_number(RELEASE)
RELEASE_MIN_NUMBER = release_number(RELEASE_CLIENT_MIN)
PULSE_INTERVAL = 100_000_000  # ns between looks for expired transfers while idle
PULSE, REQUEST = 0, 1  # kinds of journal entries

Message = tuple[Buffer, ...]  # the buffers to send, none for a request that is dropped
NOTHING: Message = ()


class Entry(NamedTuple):
    """One journalled step: a request with its header and body, or a pulse (both empty)."""

    kind: int
    timestamp: int
    header: bytes
    body: Buffer


class Session:
    """A registered client and the last reply it was sent."""

    __slots__ = ("commit", "context", "number", "query", "release", "reply", "request", "session")

    def __init__(self, session: int, release: int) -> None:
        self.session, self.release = session, release
        self.commit = self.number = 0
        self.context = self.request = b""
        self.reply: Message = NOTHING
        self.query: Query | None = None  # while the reply is being made


class Query:
    """A query whose reply takes several steps; others may be served between them."""

    def __init__(self, steps: Steps[bytes], reply: Callable[[bytes], Message]) -> None:
        self._steps, self._reply = steps, reply
        self._answer = NOTHING

    def step(self) -> Message:
        """Work a little: returns the reply if it is complete now, or already was, else NOTHING."""
        if not self._answer:
            try:
                next(self._steps)
            except StopIteration as end:
                self._answer = self._reply(end.value)
        return self._answer


class Replica:
    """One node: the whole cluster as far as a client can tell.

    Without a journal its ledger lives in memory only.
    """

    def __init__(
        self,
        cluster: int,
        replica_count: int = 1,
        journal: FileJournal | None = None,
        request_size_max: int = MESSAGE_SIZE_MAX,
    ) -> None:
        self.cluster = cluster.to_bytes(16, "little")
        self.replica_count = replica_count
        # Constant, so that a restart never lowers it; view mod replica_count is the primary, 0.
        self.view = replica_count
        self.author = Author(self.cluster, self.view, 0, RELEASE_NUMBER)
        self.request_size_max = request_size_max
        self.ledger = Ledger()
        self.execute = self.ledger.execute  # a `Liar` may take its place
        self.sessions: dict[bytes, Session] = {}
        self.commit = 0
        self.timestamp = 0
        self.journal = journal

    def take_over(self, ledger: Ledger, timestamp: int) -> None:
        """Go on with another ledger, whose newest timestamp this is; sessions stay as they are."""
        self.ledger, self.timestamp = ledger, timestamp
        self.execute = ledger.execute

    # -- messages ------------------------------------------------------------------------------

    def receive(self, frame: Frame, header: Buffer, body: Buffer, now: int) -> Message | Query:
        """Handle one intact message of this cluster at the time `now` (ns since 1970).

        Returns what to send, or a query whose `step` says it later.
        """
        if frame.command == Command.REQUEST and (request := parse_request(frame, header)):
            return self._on_request(request, header, body, now)
        if frame.command == Command.PING_CLIENT and (ping := parse_ping_client(frame, header)):
            return self._on_ping(ping)
        return NOTHING

    def _on_ping(self, ping: PingClient) -> Message:
        known = ping.client in self.sessions
        if ping.session and not known and self.commit >= ping.session:
            return self.evict(ping.client, EvictionReason.NO_SESSION)
        unsupported = _unsupported(ping.release)
        if unsupported:
            return self.evict(ping.client, unsupported)
        return (build_pong(self.author, ping),)

    def _on_request(
        self, request: Request, header: Buffer, body: Buffer, now: int
    ) -> Message | Query:
        if request.frame.view > self.view:
            return NOTHING
        reason = self._reason_to_evict(request, body)
        if reason:
            return self.evict(request.client, reason)
        session = self.sessions.get(request.client)
        if session is None:
            if request.operation != OPERATION_REGISTER:
                return self.evict(request.client, EvictionReason.NO_SESSION)
        else:
            if request.operation != OPERATION_REGISTER:
                if session.session > request.session:
                    return self.evict(request.client, EvictionReason.SESSION_TOO_LOW)
                if session.session < request.session:
                    return NOTHING
            if session.release != request.frame.release:
                return self.evict(request.client, EvictionReason.SESSION_RELEASE_MISMATCH)
            if request.number == session.number:
                repeated = request.frame.checksum == session.request
                return (session.query or session.reply) if repeated else NOTHING
            if request.number != session.number + 1 or request.parent != session.context:
                return NOTHING
        if request.timestamp or (request.operation == OPERATION_REGISTER and any(body)):
            return NOTHING
        return self._prepare(request, header, body, now)

    def _reason_to_evict(self, request: Request, body: Buffer) -> EvictionReason | None:
        """What is wrong with a request, whichever client sends it, in the genuine order."""
        unsupported = _unsupported(request.frame.release)
        if unsupported:
            return unsupported
        if request.frame.size > self.request_size_max:
            return EvictionReason.INVALID_REQUEST_BODY_SIZE
        if request.operation == OPERATION_REGISTER and len(body) != REGISTER_BODY_SIZE:
            return EvictionReason.INVALID_REQUEST_BODY_SIZE
        if request.operation in (OPERATION_REGISTER, OPERATION_NOOP):
            return None
        operation = OPERATIONS.get(request.operation)
        if operation is None:
            return EvictionReason.INVALID_REQUEST_OPERATION
        if not body_valid(operation, body, self.request_size_max - HEADER_SIZE):
            return EvictionReason.INVALID_REQUEST_BODY
        return None

    def evict(self, client: bytes, reason: EvictionReason) -> Message:
        """The message that ends a client's session."""
        return (build_eviction(self.author, client, reason),)

    # -- steps ---------------------------------------------------------------------------------

    def _prepare(self, request: Request, header: Buffer, body: Buffer, now: int) -> Message | Query:
        """Give a request its timestamp, journal it, execute it."""
        operation = OPERATIONS.get(request.operation)
        events = timestamps_needed(operation, body) if operation else 0
        timestamp = max(self.timestamp + 1, now) + events
        if self.journal:
            self.journal.append(Entry(REQUEST, timestamp, bytes(header), body))
        return self._execute(request, body, timestamp)

    def _execute(self, request: Request, body: Buffer, timestamp: int) -> Message | Query:
        self.commit += 1
        self.timestamp = timestamp
        operation = OPERATIONS.get(request.operation)
        if request.operation == OPERATION_REGISTER:
            session = self._register(request)
        else:
            session = self.sessions[request.client]
        session.request, session.number = request.frame.checksum, request.number
        session.commit = commit = self.commit

        def reply(result: bytes) -> Message:
            header, session.context = build_reply(self.author, request, commit, timestamp, result)
            session.reply, session.query = (header, result), None
            return session.reply

        if request.operation == OPERATION_REGISTER:
            limit = self.request_size_max - HEADER_SIZE
            return reply(limit.to_bytes(4, "little") + bytes(60))
        if operation is None:
            return reply(b"")
        if operation.kind not in IN_STEPS:
            return reply(self.execute(operation, body, timestamp))
        # The body is a copy: the buffer that it came in is used again.
        session.query = Query(self.ledger.begin(operation, bytes(body), timestamp), reply)
        return session.query.step() or session.query

    def _register(self, request: Request) -> Session:
        """Open a session; if the table is full, evict the one that was idle longest."""
        if len(self.sessions) >= SESSIONS_MAX:
            idlest = min(self.sessions, key=lambda client: self.sessions[client].commit)
            del self.sessions[idlest]
        session = self.sessions[request.client] = Session(self.commit, request.frame.release)
        return session

    def catch_up(self, now: int) -> None:
        """Expire what is due at `now`, as often as a server that was idle till then looked."""
        while (due := self.ledger.next_expiry()) is not None and due <= now:
            self._pulse(min(now, due + PULSE_INTERVAL))

    def _pulse(self, now: int) -> None:
        """Expire what is due at `now`, up to a batch."""
        timestamp = max(self.timestamp + 1, now) + EXPIRED_PER_PULSE
        if self.journal:
            self.journal.append(Entry(PULSE, timestamp, b"", b""))
        self._expire(timestamp)

    def _expire(self, timestamp: int) -> None:
        self.commit += 1
        self.timestamp = timestamp
        self.ledger.expire(timestamp)

    def replay(self, entry: Entry) -> None:
        """Take a journalled step again."""
        if entry.kind == PULSE:
            self._expire(entry.timestamp)
            return
        request = parse_request(read_frame(entry.header, self.cluster), entry.header)
        if request is None:
            raise ValueError("the journal holds a request that cannot have been accepted")
        answer = self._execute(request, entry.body, entry.timestamp)
        while isinstance(answer, Query) and not answer.step():
            pass


def _unsupported(release: int) -> EvictionReason | None:
    if release < RELEASE_MIN_NUMBER:
        return EvictionReason.CLIENT_RELEASE_TOO_LOW
    if release > RELEASE_NUMBER:
        return EvictionReason.CLIENT_RELEASE_TOO_HIGH
    return None
