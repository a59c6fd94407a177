"""Raw packets through the genuine client library: bytes in, bytes out, every wait bounded.

The library's Python classes turn each record into an object; comparing and measuring servers
wants the bytes, the request's timestamp, and operations the classes do not offer.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, NamedTuple

import tigerbeetle.bindings as tb

WAIT_SECONDS = 30.0
STATUS_OK = 0


@tb.LogHandler  # type: ignore[untyped-decorator]
def _quiet(level: int, message: Any, size: int) -> None:
    """Connections come and go in these tests; the library would print each."""


tb.tb_client_register_log_callback(None)  # the package's own, set on import
tb.tb_client_register_log_callback(_quiet, ctypes.c_bool(False))


class Reply(NamedTuple):
    """What the library delivered: its packet status, the request's timestamp, the results."""

    status: int
    timestamp: int
    data: bytes


class Pending:
    """A packet on its way."""

    def __init__(self, packet: Any, buffer: Any) -> None:
        self.packet, self._buffer = packet, buffer  # kept alive until the library is done
        self._done = threading.Event()
        self._reply: Reply | None = None

    def complete(self, reply: Reply) -> None:
        """Called in the library's thread."""
        self._reply = reply
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether the reply is there."""
        return self._done.is_set()

    def wait(self, seconds: float = WAIT_SECONDS) -> Reply:
        """The reply. Raises TimeoutError after `seconds`."""
        if not self._done.wait(seconds) or self._reply is None:
            raise TimeoutError(f"no reply to operation {self.packet.operation} in {seconds} s")
        return self._reply


class NativeClient:
    """One session; several packets may be submitted at once and are then combined by it."""

    def __init__(self, cluster: int, addresses: str) -> None:
        self._client = tb.CClient()
        self._pending: dict[int, Pending] = {}
        self._next = 0
        self._callback = tb.OnCompletion(self._on_completion)  # must outlive the client
        cluster_bytes = (ctypes.c_uint8 * 16)(*cluster.to_bytes(16, "little"))
        status = tb.tb_client_init(
            ctypes.byref(self._client),
            ctypes.byref(cluster_bytes),
            addresses.encode(),
            len(addresses),
            0,
            self._callback,
        )
        assert status == tb.InitStatus.SUCCESS, f"tb_client_init: {status}"

    def _on_completion(
        self, context: int, packet: Any, timestamp: int, data: int | None, size: int
    ) -> None:
        pending = self._pending.pop(packet[0].user_data)
        results = ctypes.string_at(data, size) if data and size else b""
        pending.complete(Reply(packet[0].status, timestamp, results))

    def submit(self, operation: int, body: bytes) -> Pending:
        """Send a packet without waiting. The buffer is not copied."""
        self._next += 1
        buffer = ctypes.c_char_p(body)
        packet = tb.CPacket()
        packet.next, packet.user_tag = None, 0
        packet.user_data = self._next
        packet.operation = operation
        packet.status = STATUS_OK
        packet.data_size = len(body)
        packet.data = ctypes.cast(buffer, ctypes.c_void_p)
        pending = Pending(packet, (buffer, body))
        self._pending[self._next] = pending
        status = tb.tb_client_submit(ctypes.byref(self._client), ctypes.byref(packet))
        assert status == tb.ClientStatus.OK, f"tb_client_submit: {status}"
        return pending

    def request(self, operation: int, body: bytes, seconds: float = WAIT_SECONDS) -> Reply:
        """Send a packet and wait for its reply. Raises TimeoutError."""
        return self.submit(operation, body).wait(seconds)

    def close(self) -> None:
        """Give the session up; packets in flight complete with a shutdown status."""
        tb.tb_client_deinit(ctypes.byref(self._client))

    def __enter__(self) -> NativeClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
