"""A protocol client made of sockets: says what no client library would say.

Packs headers by the documented offsets, without the emulator's own codec; only the checksum
function is shared, and that is tested against published vectors.
"""

from __future__ import annotations

import secrets
import socket
import time
from typing import NamedTuple

from tests.emulator import records
from tigerbeetle_emulator.protocol.aegis import checksum

HEADER = 256
PING_CLIENT, PONG_CLIENT, REQUEST, REPLY, EVICTION = 3, 4, 5, 8, 18
REGISTER, NOOP = 2, 6
RELEASE = 0x1109
WAIT_SECONDS = 10.0
SILENCE_SECONDS = 0.25  # a server that has not answered by then has dropped the message

# field -> (offset, size): common part, then requests and pings
FIELDS = {
    "checksum_padding": (16, 16),
    "checksum_body_padding": (48, 16),
    "nonce": (64, 16),
    "cluster": (80, 16),
    "size": (96, 4),
    "epoch": (100, 4),
    "view": (104, 4),
    "release": (108, 4),
    "protocol": (112, 2),
    "command": (114, 1),
    "replica": (115, 1),
    "frame_reserved": (116, 12),
    "parent": (128, 16),
    "parent_padding": (144, 16),
    "client": (160, 16),
    "session": (176, 8),
    "timestamp": (184, 8),
    "request": (192, 4),
    "operation": (196, 1),
    "operation_padding": (197, 3),
    "latency": (200, 4),
    "reserved": (204, 52),
    "ping_client": (128, 16),
    "ping_monotonic": (144, 8),
    "ping_session": (152, 8),
    "ping_reserved": (160, 96),
}


def message(body: bytes = b"", **fields: int) -> bytes:
    """A message with correct checksums, whatever else is wrong with it."""
    header = bytearray(HEADER)
    values = {"size": HEADER + len(body), "release": RELEASE} | fields
    for name, value in values.items():
        offset, size = FIELDS[name]
        header[offset : offset + size] = value.to_bytes(size, "little")
    header[32:48] = checksum(body)
    header[0:16] = checksum(bytes(header[16:]))
    return bytes(header) + body


class Answer(NamedTuple):
    """What came back."""

    header: bytes
    body: bytes

    @property
    def command(self) -> int:
        return self.header[114]

    @property
    def reason(self) -> int:
        """Of an eviction."""
        assert self.command == EVICTION, f"command {self.command}"
        return self.header[255]

    def number(self, offset: int, size: int) -> int:
        """An integer of the header."""
        return int.from_bytes(self.header[offset : offset + size], "little")

    @property
    def context(self) -> int:
        return self.number(160, 16)

    @property
    def commit(self) -> int:
        return self.number(216, 8)

    @property
    def timestamp(self) -> int:
        return self.number(224, 8)

    @property
    def operation(self) -> int:
        return self.number(236, 1)


class Closed(Exception):  # noqa: N818 an outcome, no failure
    """The server closed the connection."""


class RawClient:
    """One connection and one session; every field of every message can be set."""

    def __init__(self, port: int, cluster: int = 0, client: int | None = None) -> None:
        self.cluster, self.port = cluster, port
        self.client = client or secrets.randbits(127) | 1
        self.session = self.request_number = self.parent = 0
        self.release = RELEASE
        self._buffer = b""
        self.patience = SILENCE_SECONDS
        self.others: list[RawClient] = []  # closed together with this one
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self.port), WAIT_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def reconnect(self) -> None:
        """Come back with the same session."""
        self.socket.close()
        self._buffer = b""
        self.socket = self._connect()

    def close(self) -> None:
        for each in (*self.others, self):
            each.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- bytes ---------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Raw bytes; a connection closed by the server shows when receiving."""
        try:
            self.socket.sendall(data)
        except OSError:
            raise Closed from None

    def receive(self, seconds: float = WAIT_SECONDS) -> Answer | None:
        """The next message, or None when none comes in time. Raises Closed."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self._buffer) >= HEADER:
                size = int.from_bytes(self._buffer[96:100], "little")
                if len(self._buffer) >= size:
                    found = Answer(self._buffer[:HEADER], self._buffer[HEADER:size])
                    self._buffer = self._buffer[size:]
                    return found
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 20)
            except TimeoutError:
                return None
            except OSError:
                raise Closed from None
            if not data:
                raise Closed
            self._buffer += data

    # -- messages ------------------------------------------------------------------------------

    def request_bytes(self, operation: int, body: bytes = b"", **fields: int) -> bytes:
        """The next request of this session; `fields` override what is right."""
        right = {
            "command": REQUEST,
            "cluster": self.cluster,
            "release": self.release,
            "client": self.client,
            "parent": self.parent,
            "session": self.session,
            "request": self.request_number,
            "operation": operation,
        }
        return message(body, **{**right, **fields})

    def ask(
        self, operation: int, body: bytes = b"", wait: float | None = None, **fields: int
    ) -> Answer | None:
        """Send a request, right or wrong; the answer, or None when there is none."""
        self.send(self.request_bytes(operation, body, **fields))
        return self.receive(wait or self.patience)

    def register(self) -> Answer:
        """Open the session."""
        deadline = time.monotonic() + WAIT_SECONDS
        answer = None
        while answer is None:  # as every client does: a server that is not ready drops it
            assert time.monotonic() < deadline, "not registered"
            answer = self.ask(REGISTER, bytes(256), 0.5)
        assert answer.command == REPLY, f"command {answer.command}"
        self.session = answer.commit
        return self._accept(answer)

    def _accept(self, answer: Answer) -> Answer:
        self.parent = answer.context
        self.request_number += 1
        return answer

    def request(self, operation: int, body: bytes = b"") -> Answer:
        """A request that must be answered by a reply."""
        self.send(self.request_bytes(operation, body))
        while True:
            answer = self.receive()
            assert answer is not None, "no answer"
            # A registration that was sent twice, to a server that was busy, is answered twice.
            if answer.command != REPLY or answer.operation == operation:
                break
        assert answer.command == REPLY, f"command {answer.command}, {answer.header[255]}"
        return self._accept(answer)

    def batches(self, operation: int, batches: list[bytes]) -> Answer:
        """A multi-batch request that must be answered by a reply."""
        return self.request(operation, multi_batch(operation, batches))

    def ping(self, **fields: int) -> Answer | None:
        """Send ping_client."""
        right = {
            "command": PING_CLIENT,
            "cluster": self.cluster,
            "release": self.release,
            "ping_client": self.client,
            "ping_session": self.session,
        }
        self.send(message(b"", **{**right, **fields}))
        return self.receive(self.patience)


def multi_batch(operation: int, batches: list[bytes]) -> bytes:
    """The body of these batches."""
    width = records.size(records.OPERATIONS[operation][1])
    counts = [len(batch) // width for batch in batches]
    return b"".join(batches) + records.trailer(counts, width)


def split_batches(data: bytes, width: int) -> list[bytes]:
    """The batches of a reply body whose results are `width` bytes long."""
    count = int.from_bytes(data[-2:], "little")
    words = [data[-2 * n - 2 : -2 * n or None] for n in range(1, count + 1)]
    batches, start = [], 0
    for word in words:
        size = int.from_bytes(word, "little") * width
        batches.append(data[start : start + size])
        start += size
    return batches
