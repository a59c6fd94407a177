"""One client connection: reads bytes, and gives whole messages to the server."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from ..protocol.aegis import Buffer
from ..protocol.wire import HEADER_SIZE, DamagedError, Frame, StrangerError, body_intact, read_frame
from .loop import Loop, Outgoing

_BUFFER_SIZE = 64 * 1024
# A client has one request in flight; one that never reads its replies is cut off at this.
_OUTGOING_MAX = 64 << 20


class Connection:
    """Reads messages off a socket and hands each, intact, to `on_message`.

    Damaged input closes the connection; `on_close` is told why, in words to be shown to a person.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        peer: str,
        cluster: bytes,
        on_message: Callable[[Connection, Frame, Buffer, Buffer], None],
        on_close: Callable[[Connection, str], None],
    ) -> None:
        self.peer = peer
        self.is_relay = self.on_probation = False
        self._loop, self._socket, self._cluster = loop, sock, cluster
        self._on_message, self._on_close = on_message, on_close
        self._buffer = bytearray(_BUFFER_SIZE)
        self._filled = 0
        self._frame: Frame | None = None  # of the message whose body is still coming
        self._outgoing = Outgoing(sock)
        self._open = True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock, selectors.EVENT_READ, self._on_ready)

    def send(self, message: tuple[Buffer, ...]) -> None:
        """Send, now or as soon as the socket takes it; nothing once the connection is closed."""
        if not self._open:
            return
        try:
            self._outgoing.send(message)
        except OSError:
            self.close()
            return
        if self._outgoing.size > _OUTGOING_MAX:
            self.close(f"{self.peer} does not read its replies, closed")
        elif self._outgoing.size:
            self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def close(self, reason: str = "") -> None:
        """Close; with a reason that a person should know."""
        if self._open:
            self._open = False
            self._on_close(self, reason)  # told before the client can notice
            self._loop.drop(self._socket)

    def _watch(self, events: int) -> None:
        self._loop.watch(self._socket, events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._outgoing.flush()
                if not self._outgoing.size:
                    self._watch(selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                while self._open and self._read() and self._frame is not None:
                    pass  # the rest of a large message is usually there already
        except StrangerError as error:
            self.close(str(error))
        except DamagedError as error:
            self.close(f"{self.peer}: {error}, closed")
        except OSError:
            self.close()

    def _read(self) -> bool:
        """Take what has arrived; returns whether there was anything."""
        with memoryview(self._buffer) as view:
            try:
                count = self._socket.recv_into(view[self._filled :])
            except BlockingIOError:
                return False
        if not count:
            self.close()
            return False
        self._filled += count
        start = 0
        while self._open and self._filled - start >= HEADER_SIZE:
            size = self._take(start)
            if not size:
                break
            start += size
        if start:
            self._buffer[: self._filled - start] = self._buffer[start : self._filled]
            self._filled -= start
        if self._frame is not None and self._frame.size > len(self._buffer):
            grown = bytearray(self._frame.size + _BUFFER_SIZE)
            grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown
        return True

    def _take(self, start: int) -> int:
        """Handle the message at `start` if it is whole; returns its size, or 0."""
        with memoryview(self._buffer) as view:
            header = view[start : start + HEADER_SIZE]
            if self._frame is None:
                self._frame = read_frame(header, self._cluster)
            frame = self._frame
            if self._filled - start < frame.size:
                return 0
            self._frame = None
            body = view[start + HEADER_SIZE : start + frame.size]
            if not body_intact(frame, body):
                raise DamagedError("body checksum mismatch")
            self._on_message(self, frame, header, body)
            header.release()
            body.release()
            return frame.size
