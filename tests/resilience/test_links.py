"""The links that faults bend: what they deliver, hold back, and swallow."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.leases import free_ports
from tests.links import Links

CLIENT, SERVER = 1, 0
BOUND_S = 60.0  # against a hang


@pytest.fixture
def links() -> Iterator[Links]:
    """One server that echoes, behind a link; node 1 is a client."""
    (port,) = free_ports(1)
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()
    made = Links([port], clients=True)
    yield made
    made.close()
    listener.close()


def _echo(listener: socket.socket) -> None:
    try:
        while True:
            connection, _ = listener.accept()
            while data := connection.recv(100):
                connection.sendall(data)
    except OSError:
        return


@pytest.fixture
def client(links: Links) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", links.port[CLIENT, SERVER]), BOUND_S) as made:
        yield made


def ask(client: socket.socket, timeout_s: float) -> tuple[bytes, float]:
    """The echo, and after how long; nothing when it does not come in time."""
    begun = time.monotonic()
    client.settimeout(timeout_s)
    client.sendall(b"?")
    try:
        return client.recv(1), time.monotonic() - begun
    except TimeoutError:
        return b"", timeout_s


def test_a_whole_link_delivers(client: socket.socket) -> None:
    assert ask(client, BOUND_S)[0] == b"?"


def test_a_cut_link_says_nothing_until_it_is_healed(links: Links, client: socket.socket) -> None:
    links.isolate(SERVER)
    assert ask(client, 0.5)[0] == b""
    links.heal()
    client.settimeout(BOUND_S)
    assert client.recv(1) == b"?"  # TCP has kept it


def test_a_slow_link_holds_back_both_ways(links: Links, client: socket.socket) -> None:
    links.disturb(SERVER, delay_s=0.15, loss=0.0)
    echo, after_s = ask(client, BOUND_S)
    assert echo == b"?"
    assert after_s >= 0.3


def test_what_a_lossy_link_loses_comes_late(links: Links, client: socket.socket) -> None:
    links.disturb(SERVER, delay_s=0.0, loss=1.0)
    echo, after_s = ask(client, BOUND_S)
    assert echo == b"?"
    assert after_s >= 0.4  # once each way
