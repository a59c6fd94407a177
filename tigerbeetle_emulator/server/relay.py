"""The other addresses of a cluster: each connection is passed on to the node with the ledger.

Clients connect to all replicas. In the emulator only the first replica has the ledger; the others
forward everything to it. While the first is away, they close their connections, and clients come
back by themselves.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
from collections.abc import Callable

from ..protocol.wire import Author, build_ping
from .addresses import Address, listen
from .log import logger
from .loop import Loop, Outgoing
from .notices import Notices, crowded
from .server import CLIENTS_MAX

_LOG = logger("relay")
_CHUNK = 256 * 1024
_BACKLOG_MAX = 4 << 20  # bytes waiting for a slow reader before its writer has to wait


class Relay:
    """Forwards connections from one address to another."""

    def __init__(
        self, author: Author, address: Address, upstream: Address, *, clients_max: int = CLIENTS_MAX
    ) -> None:
        """Bind `address`. Raises OSError."""
        self._hello = build_ping(author)
        self._upstream, self._clients_max = upstream, clients_max
        self._notices = Notices("relay")
        self._loop = Loop()
        self._pipes: set[_Pipe] = set()
        self._upstream_answers = True
        self._listener = listen(address)
        self.addresses = [Address(*self._listener.getsockname()[:2])]
        self._loop.accept_from(self._listener, self._admit)

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self._loop.run()
        finally:
            self._listener.close()
            for pipe in list(self._pipes):
                pipe.close()
            self._loop.close()

    def stop(self) -> None:
        """Let `run` return; safe from any thread."""
        self._loop.stop()

    def _admit(self, client: socket.socket, _peer: str) -> None:
        if len(self._pipes) >= self._clients_max:
            self._notices.tell(crowded(self._clients_max))
            client.close()
            return
        self._pipes.add(_Pipe(self._loop, client, self._upstream, self._hello, self._on_close))

    def _on_close(self, pipe: _Pipe, connected: bool) -> None:
        self._pipes.discard(pipe)
        self._notices.forget(crowded(self._clients_max))
        if connected != self._upstream_answers:
            self._upstream_answers = connected
            state = "answers again" if connected else "does not answer"
            _LOG.warning("%s %s", self._upstream, state)


class _Pipe:
    """One client connection and its counterpart at the ledger."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        upstream: Address,
        hello: bytes,
        on_close: Callable[[_Pipe, bool], None],
    ) -> None:
        self._loop, self._on_close = loop, on_close
        family = socket.AF_INET6 if ":" in upstream.host else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        self._ends = (client, server)
        self._outgoing = (Outgoing(client), Outgoing(server))
        self._open, self._connected = True, False
        for end in self._ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._hello = hello
        if server.connect_ex(tuple(upstream)) not in (0, errno.EINPROGRESS):
            loop.call(self.close)
            return
        loop.watch(server, selectors.EVENT_WRITE, self._on_connected)

    def close(self) -> None:
        """Close both ends."""
        if self._open:
            self._open = False
            for end in self._ends:
                self._loop.forget(end)
                end.close()
            self._on_close(self, self._connected)

    def _on_connected(self, _events: int) -> None:
        server = self._ends[1]
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
            return
        self._connected = True
        with contextlib.suppress(OSError):
            self._outgoing[1].send((self._hello,))
        self._watch()

    def _watch(self) -> None:
        """Read from an end while the other keeps up; write to an end that has something waiting."""
        for side, end in enumerate(self._ends):
            other = self._outgoing[1 - side]
            events = selectors.EVENT_READ if other.size < _BACKLOG_MAX else 0
            events |= selectors.EVENT_WRITE if self._outgoing[side].size else 0
            if events:
                self._loop.watch(end, events, self._handler(side))
            else:
                self._loop.forget(end)

    def _handler(self, side: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if not self._open:
                return
            try:
                busy = self._outgoing[0].size + self._outgoing[1].size
                if events & selectors.EVENT_WRITE:
                    self._outgoing[side].flush()
                if events & selectors.EVENT_READ:
                    data = self._ends[side].recv(_CHUNK)
                    if not data:
                        self.close()
                        return
                    self._outgoing[1 - side].send((data,))
                if busy or self._outgoing[0].size or self._outgoing[1].size:
                    self._watch()
            except BlockingIOError:
                pass
            except OSError:
                self.close()

        return ready
