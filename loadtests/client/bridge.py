"""The official native client under gevent: no blocked hub, no Python object per transfer.

The package's own ClientSync costs about ten Python calls on a foreign thread per request. Here the
completion callback copies the reply, appends it to a deque and wakes the hub; nothing else runs on
the native thread. Make a client after fork, in the process that uses it.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

import gevent
import gevent.event
import tigerbeetle as tb
from gevent import get_hub

from cluster.refusal import Refusal

logger = logging.getLogger("tigerbeetle")

#: TigerBeetle takes at most 6 replica addresses and 64 client sessions, of which 32 connected.
SESSIONS_MAX = 64
CONNECTIONS_MAX = 32

CLOSE_TIMEOUT_S = 5.0
_LOG_LINES_MAX = 1000


class BridgeError(Refusal):
    """The client cannot serve: the message says why and what to do."""


class Unanswered(Exception):  # noqa: N818 - an outcome, not an error: the transfer may be committed
    """The deadline passed without a reply. The outcome is unknown until the ledger is asked."""


class Reply(NamedTuple):
    """One completed packet: ``status`` as tb.PacketStatus, ``body`` the packed results."""

    status: int
    timestamp: int
    body: bytes
    at: float  # when the native thread handed it over: perf_counter


#: Seconds that a call has waited for the packet in flight, and then for its own.
Waits = tuple[float, float]


_EVICTION = (
    f"a cluster keeps {SESSIONS_MAX} sessions and drops the least recently active one. "
    "Fix: run fewer clients (2 for each worker process)"
)

#: What each packet status but OK means to a person.
PACKET_ERRORS = {
    1: "the batch is larger than the cluster accepts: lower --batch-max "
    "(a cluster started with --development takes 253)",
    2: f"this client was evicted: {_EVICTION}",
    3: "the cluster refuses this client: its release is older than the cluster supports. "
    "Fix: install the client of the cluster's release",
    4: "the cluster refuses this client: its release is newer than the cluster's. "
    "Fix: upgrade the replicas first, or install the client of the cluster's release",
    # An eviction between two requests is reported only by this status, at the next request.
    5: f"the client was closed, or evicted before: {_EVICTION}",
    6: "the client library does not know this operation: it is of another release than ours",
    7: "the client library refuses the size of the data: it is of another release than ours",
}

#: Closed, but their native threads have not ended: what these call must not go away.
_abandoned: list[NativeClient] = []
_log_lines: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES_MAX)


@tb.LogHandler
def _keep_log_line(level: int, message: int, length: int) -> None:
    # A native thread must not enter `logging`: its locks are gevent's and can hang greenlets.
    _log_lines.append((level, ctypes.string_at(message, length).decode("utf-8", "replace")))


@cache
def take_over_logging() -> None:
    """Keep the native library's log lines in memory instead of calling ``logging`` off-thread."""
    tb.configure_logging(debug=False, handler=_keep_log_line)


def log_lines() -> list[str]:
    """The latest lines the native client logged, oldest first, without debug lines."""
    return [text for level, text in list(_log_lines) if level <= tb.LogLevel.INFO]


class NativeClient:
    """One session with a cluster. ``submit`` never blocks; replies arrive in the hub's thread."""

    def __init__(self, cluster_id: int, addresses: str) -> None:
        """Start a client; it connects by itself, and keeps trying for ever.

        Raises BridgeError if the addresses are malformed or the system refuses.
        """
        take_over_logging()
        self._pid = os.getpid()
        self._done: deque[tuple[int, Reply]] = deque()
        self._packets: dict[int, tuple[tb.CPacket, bytes, Callable[[Reply], None]]] = {}
        self._next_key = 0
        self._closed = False
        self._watcher = get_hub().loop.async_()
        self._watcher.start(self._drain)
        self._callback = tb.OnCompletion(self._on_completion)
        self._handle = tb.CClient()
        identity = (ctypes.c_uint8 * 16)(*cluster_id.to_bytes(16, "little"))
        status = tb.tb_client_init(
            ctypes.byref(self._handle),
            ctypes.byref(identity),
            addresses.encode("ascii"),
            len(addresses),
            None,
            self._callback,
        )
        if status != tb.InitStatus.SUCCESS:
            self._closed = True
            self._watcher.stop()
            raise BridgeError(
                f"addresses: expected 1 to 6 of IP:PORT separated by commas, found {addresses!r} "
                f"({tb.InitStatus(status).name}). Fix: TigerBeetle resolves no host names"
            )

    def submit(self, operation: int, data: bytes, on_reply: Callable[[Reply], None]) -> None:
        """Send one packet; ``on_reply`` is called in the hub, and must not block.

        Raises BridgeError after ``close``, and in a process that only inherited the client.
        """
        if self._closed or os.getpid() != self._pid:
            raise BridgeError("this client is closed, or was made before a fork: make a new one")
        self._next_key += 1
        packet = tb.CPacket()
        packet.user_data = self._next_key
        packet.operation = operation
        packet.data_size = len(data)
        packet.data = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)
        # Referenced until the callback: the native side reads both from its own thread.
        self._packets[self._next_key] = (packet, data, on_reply)
        status = tb.tb_client_submit(ctypes.byref(self._handle), ctypes.byref(packet))
        if status != tb.ClientStatus.OK:
            del self._packets[self._next_key]
            raise BridgeError(PACKET_ERRORS[5])

    def call(self, operation: int, data: bytes, timeout_s: float) -> Reply:
        """Send one packet and wait for its reply in this greenlet only. Raises Unanswered."""
        replied = gevent.event.AsyncResult()
        self.submit(operation, data, replied.set)
        try:
            reply: Reply = replied.get(timeout=timeout_s)
        except gevent.Timeout:
            raise Unanswered(f"no reply within {timeout_s:g} s") from None
        return reply

    def close(self) -> None:
        """End the session; packets in flight are completed as shut down. Bounded, idempotent."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        # This waits for the native thread, whose last callbacks need this thread's hub to run.
        ending = get_hub().threadpool.spawn(tb.tb_client_deinit, ctypes.byref(self._handle))
        ending.wait(timeout=CLOSE_TIMEOUT_S)
        self._drain()
        self._watcher.stop()
        if ending.ready():
            self._watcher.close()
        else:
            _abandoned.append(self)

    def _on_completion(
        self, _context: Any, packet: Any, timestamp: int, body: int | None, size: int
    ) -> None:
        """On the native thread: copy, append, wake."""
        done = packet[0]
        copy = ctypes.string_at(body, size) if size and body else b""
        self._done.append((done.user_data, Reply(done.status, timestamp, copy, perf_counter())))
        self._watcher.send()

    def _drain(self) -> None:
        while self._done:
            key, reply = self._done.popleft()
            _packet, _data, on_reply = self._packets.pop(key)
            on_reply(reply)


@dataclass(slots=True, eq=False)
class _Waiter:
    """The events that one greenlet has handed to a Combiner, and the greenlet that waits."""

    events: bytes
    count: int
    greenlet: Any = field(default_factory=gevent.getcurrent)
    since: float = field(default_factory=perf_counter)


class Combiner:
    """Joins the events that many greenlets submit meanwhile into one packet; one is in flight.

    A client has only one request in flight on the wire, and each packet with its native callback
    costs Python time. The events of one greenlet stay together, so linked chains do too.
    """

    def __init__(
        self,
        client: NativeClient,
        operation: int,
        event_size: int,
        *,
        batch_max: int,
        deadline_s: float,
        on_packet: Callable[[bytes, Reply, float], list[Any]],
    ) -> None:
        """``on_packet(events, reply, sent_at)`` returns one result per event, in order."""
        self._client = client
        self._operation = operation
        self._event_size = event_size
        self._batch_max = batch_max
        self._deadline_s = deadline_s
        self._on_packet = on_packet
        self._queue: deque[_Waiter] = deque()
        self._flight: list[_Waiter] | None = None
        self._flight_events = b""
        self._flight_since = 0.0
        self._answered = 0.0, 0.0  # the last packet: when it was sent, and answered
        #: Of the call that has returned or raised last: to be read before anything else waits.
        self.waits: Waits = 0.0, 0.0
        self._flush_due = False
        self._hub = get_hub()
        self._sweeper = gevent.spawn(self._sweep)

    def call(self, events: bytes) -> list[Any]:
        """Hand over packed events and wait for their results.

        Raises Unanswered when the deadline passes, BridgeError when the client cannot serve, and
        ValueError for no events or more than fit into one batch.
        """
        count = len(events) // self._event_size
        if not 0 < count <= self._batch_max:
            raise ValueError(f"expected 1 to {self._batch_max} events, found {count}")
        waiter = _Waiter(events, count)
        self._queue.append(waiter)
        if self._flight is None and not self._flush_due:
            self._flush_due = True
            self._hub.loop.run_callback(self._flush)
        try:
            results: list[Any] = self._hub.switch()
        except BaseException:
            waiter.greenlet = None  # killed or timed out: no greenlet to wake any more
            # Without an answer: its packet is in flight, or another still is.
            now, is_sent = perf_counter(), bool(self._flight) and waiter.since <= self._flight_since
            sent_at = self._flight_since if is_sent else now
            self.waits = sent_at - waiter.since, now - sent_at
            raise
        sent_at, answered_at = self._answered
        self.waits = sent_at - waiter.since, answered_at - sent_at
        return results

    @property
    def unanswered(self) -> bytes:
        """The events in flight: sent, and without a reply so far."""
        return self._flight_events

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is queued or in flight; False if the time ran out first."""
        until = perf_counter() + timeout_s
        while self._queue or self._flight is not None:
            if perf_counter() > until:
                return False
            gevent.sleep(0.01)
        return True

    def close(self) -> None:
        """Fail the greenlets that still wait, and stop watching deadlines."""
        self._sweeper.kill()
        self._fail([*self._queue, *(self._flight or [])], BridgeError(PACKET_ERRORS[5]))
        self._queue.clear()

    def _flush(self) -> None:
        self._flush_due = False
        if self._flight is not None or not self._queue:
            return
        queue, flight, room = self._queue, [], self._batch_max
        while queue and queue[0].count <= room:
            waiter = queue.popleft()
            if waiter.greenlet is not None:  # gave up before it was sent: never send it
                room -= waiter.count
                flight.append(waiter)
        if not flight:
            return
        events = b"".join([waiter.events for waiter in flight])
        self._flight, self._flight_events, self._flight_since = flight, events, perf_counter()
        try:
            self._client.submit(self._operation, events, self._on_reply)
        except BridgeError as error:
            self._flight, self._flight_events = None, b""
            self._fail(flight, error)

    def _on_reply(self, reply: Reply) -> None:
        flight, events, sent_at = self._flight or [], self._flight_events, self._flight_since
        self._flight, self._flight_events = None, b""
        if reply.status != tb.PacketStatus.OK:
            # Before the next packet: its status would only say that the client was closed.
            self._on_packet(events, reply, sent_at)
            self._fail(flight, BridgeError(PACKET_ERRORS[reply.status]))
            self._flush()
            return
        self._flush()  # the cluster works on the next packet while Python wakes the greenlets
        results = self._on_packet(events, reply, sent_at)
        self._answered, at = (sent_at, reply.at), 0
        for waiter in flight:
            mine = results[at : at + waiter.count]
            at += waiter.count
            greenlet, waiter.greenlet = waiter.greenlet, None
            if greenlet is not None:
                greenlet.switch(mine)

    def _sweep(self) -> None:
        """Watch deadlines in bulk: a timer per request would cost more than the request."""
        while True:
            gevent.sleep(min(0.1, self._deadline_s / 4))
            oldest = perf_counter() - self._deadline_s
            late = []
            while self._queue and self._queue[0].since < oldest:
                late.append(self._queue.popleft())
            # The packet itself stays in flight: its late reply still goes into the record.
            late += [w for w in self._flight or [] if w.since < oldest and w.greenlet is not None]
            if late:
                message = f"no reply within {self._deadline_s:g} s"
                self._fail(late, Unanswered(message))

    def _fail(self, waiters: list[_Waiter], error: Exception) -> None:
        for waiter in waiters:
            self._hub.loop.run_callback(_throw, waiter, error)


def _throw(waiter: _Waiter, error: Exception) -> None:
    """Fail a greenlet, unless it has been answered or killed by now. Only in the hub."""
    greenlet, waiter.greenlet = waiter.greenlet, None
    if greenlet is not None:
        greenlet.throw(error)
