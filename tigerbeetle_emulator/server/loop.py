"""A small event loop over sockets, for the server and the relay."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import sys
import weakref
from collections import deque
from collections.abc import Callable

from ..protocol.aegis import Buffer
from .clock import monotonic

Callback = Callable[[], None]


class Loop:
    """Waits for sockets and for points in time; runs in the thread that calls `run`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._stopping = False
        self._calls: deque[Callback] = deque()
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self.watch(self._woken, selectors.EVENT_READ, self._on_woken)
        _loops.add(self)

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the ready events; replaces what was watched before."""
        try:
            self._selector.modify(sock, events, handler)
        except KeyError:
            self._selector.register(sock, events, handler)

    def accept_from(
        self, listener: socket.socket, admit: Callable[[socket.socket, str], None]
    ) -> None:
        """Call `admit` with each new connection and its peer's address."""

        def accept(_events: int) -> None:
            try:
                sock, peer = listener.accept()
            except OSError:  # gone again, or no descriptors left
                return
            admit(sock, f"{peer[0]}:{peer[1]}")

        self.watch(listener, selectors.EVENT_READ, accept)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching a socket; harmless if it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def drop(self, sock: socket.socket) -> None:
        """Forget a socket, end its connection and close it."""
        self.forget(sock)
        # A process that native code forked may have it open, too: closing alone would end nothing.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def after(self, seconds: float, callback: Callback) -> None:
        """Call back once, that much later."""
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._order), callback))

    def call(self, callback: Callback) -> None:
        """Have the loop's thread call back soon; safe from any thread."""
        self._calls.append(callback)
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody listens
            self._waker.send(b"\0")

    def stop(self) -> None:
        """Let `run` return; safe from any thread."""
        self.call(self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def _on_woken(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        for _ in range(len(self._calls)):  # those that they add come after the sockets' next turn
            self._calls.popleft()()

    def run(self) -> None:
        """Serve until stopped."""
        self._stopping = False
        while not self._stopping:
            timeout = None
            if self._timers:
                timeout = max(0.0, self._timers[0][0] - monotonic())
            for key, events in self._selector.select(timeout):
                key.data(events)
            while self._timers and self._timers[0][0] <= monotonic():
                heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Release what the loop itself holds."""
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def abandon(self) -> None:
        """Close all sockets as a forked child does: what they lead to is its parent's."""
        for key in list((self._selector.get_map() or {}).values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self.close()


_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def _abandon_all() -> None:
    """A child that kept a listener would keep its port; a connection, its client waiting."""
    for loop in list(_loops):
        loop.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class Outgoing:
    """What still has to be written to a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._waiting: deque[memoryview] = deque()
        self.size = 0

    def send(self, buffers: tuple[Buffer, ...]) -> None:
        """Write as much as the socket takes now and keep the rest. Raises OSError."""
        if not self._waiting:
            total = sum(map(len, buffers))
            try:
                if sys.platform == "win32":  # which cannot gather
                    sent = self._socket.send(b"".join(buffers))
                else:
                    sent = self._socket.sendmsg(buffers)
            except BlockingIOError:
                sent = 0
            if sent == total:
                return
            buffers = (b"".join(buffers)[sent:],)
        for buffer in buffers:
            self._waiting.append(memoryview(bytes(buffer)))
            self.size += len(buffer)

    def flush(self) -> None:
        """Write more of what is kept. Raises OSError."""
        while self._waiting:
            first = self._waiting[0]
            try:
                sent = self._socket.send(first)
            except BlockingIOError:
                return
            self.size -= sent
            if sent < len(first):
                self._waiting[0] = first[sent:]
                return
            self._waiting.popleft()
