"""Ask one replica whether it works: a `ping_client` of the client protocol, and its pong.

An open port proves only that the kernel listens. A pong proves that the replica itself runs. It has
the view and the release, needs no session (a cluster has 64), and changes nothing.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from cluster.config import Replica
from tigerbeetle_emulator.protocol import wire

#: The ping is sent again after this time, for a replica that starts or changes its view.
TIMEOUT_S = 2.0
_RESEND_S = 0.5


@dataclass(frozen=True)
class Pong:
    """A replica's view and release, and how long its answer took (milliseconds)."""

    replica: int
    view: int
    release: str
    ms: float


def request(cluster_id: int, client: bytes, monotonic: int) -> bytes:
    """A ping_client message of the oldest client release that 0.17 serves: no server refuses it."""
    release = wire.release_number(wire.RELEASE_CLIENT_MIN)
    author = wire.Author(cluster_id.to_bytes(16, "little"), 0, 0, release)
    return wire.build_ping_client(author, client, monotonic)


def answer(header: bytes, cluster_id: int, ms: float) -> Pong | None:
    """The pong in a header; None for any other message. Raises wire.DamagedError."""
    frame = wire.read_frame(header, cluster_id.to_bytes(16, "little"))
    if frame.command != wire.Command.PONG_CLIENT:
        return None
    return Pong(frame.replica, frame.view, wire.release_text(frame.release), round(ms, 3))


def ask(replica: Replica, cluster_id: int, timeout_s: float = TIMEOUT_S) -> Pong | None:
    """The replica's pong; None if it refuses, sends nothing in ``timeout_s``, or something else."""
    begun = time.monotonic()
    client = os.urandom(16)
    try:
        with socket.create_connection((str(replica.ip), replica.port), timeout_s) as connection:
            while (left := begun + timeout_s - time.monotonic()) > 0:
                connection.settimeout(min(_RESEND_S, left))
                connection.sendall(request(cluster_id, client, time.monotonic_ns()))
                sent = time.monotonic()
                header = _header(connection)
                ms = (time.monotonic() - sent) * 1000
                if header is not None and (pong := answer(header, cluster_id, ms)):
                    return pong
    except (OSError, wire.DamagedError):
        pass
    return None


def _header(connection: socket.socket) -> bytes | None:
    """The next 256 bytes; None when they do not come in time. Raises OSError at the end."""
    received = b""
    try:
        while len(received) < wire.HEADER_SIZE:
            part = connection.recv(wire.HEADER_SIZE - len(received))
            if not part:
                raise ConnectionError("closed")
            received += part
    except TimeoutError:
        return None
    return received
