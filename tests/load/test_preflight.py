"""Why a cluster does not answer: told in one message, within seconds, and never by a hang."""

from __future__ import annotations

import socket
from contextlib import closing

import gevent
import pytest
import tigerbeetle as tb

import tigerbeetle_emulator
from cluster.refusal import Refusal
from loadtests.client import preflight
from loadtests.client.bridge import BridgeError, NativeClient, Unanswered
from loadtests.client.ledger import Ledger
from tests.load.conftest import CLUSTER_ID, TIMEOUT_S, Server
from tigerbeetle_emulator.server.faults import Faults

#: What a server takes of clients at once.
CONNECTIONS = 32


def refusal(cluster_id: int, addresses: str, timeout_s: float = 2.0) -> str:
    ledger = Ledger(cluster_id, addresses)
    try:
        with pytest.raises(BridgeError) as raised:
            ledger.connect(timeout_s)
    finally:
        ledger.close()
    return str(raised.value)


def test_a_wrong_address_is_told_within_seconds() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    message = refusal(0, f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refuses" in message
    assert "is the cluster up" in message


def test_a_wrong_cluster_id_is_told_within_seconds(server: Server) -> None:
    message = refusal(CLUSTER_ID + 1, server.address)
    assert f"is the cluster id {CLUSTER_ID + 1} right" in message


def test_a_server_with_all_connections_taken_is_told_within_seconds() -> None:
    faults = Faults(refuse=1.0)
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, faults=faults) as full:
        message = refusal(CLUSTER_ID, full.address)
    assert "closes at once" in message
    assert "32 client connections" in message


def test_an_evicted_client_says_why() -> None:
    faults = Faults(evict=1.0)
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, faults=faults) as evicting:
        message = refusal(CLUSTER_ID, evicting.address, 5.0)
    assert "evicted" in message
    assert "64 sessions" in message


@pytest.mark.parametrize(
    ("limit", "message"),
    [("RELEASE_NUMBER", "newer than the cluster's"), ("RELEASE_MIN_NUMBER", "older than")],
)
def test_a_client_library_of_the_wrong_release_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    release = 0x1000 if limit == "RELEASE_NUMBER" else 0xFF0000
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID) as other:
        monkeypatch.setattr(f"tigerbeetle_emulator.server.replica.{limit}", release)
        assert message in refusal(CLUSTER_ID, other.address, 5.0)


def test_of_65_clients_as_many_as_can_connect_are_answered_and_the_others_get_a_clear_message(
    own_server: Server,
) -> None:
    clients = [NativeClient(CLUSTER_ID, own_server.address) for _ in range(65)]
    operation, ident = tb.Operation.LOOKUP_ACCOUNTS, bytes(15) + b"\x01"
    try:
        calls = [gevent.spawn(client.call, operation, ident, TIMEOUT_S) for client in clients]
        gevent.wait(calls, timeout=TIMEOUT_S, count=CONNECTIONS)
        waiting = [c for c, call in zip(clients, calls, strict=True) if not call.ready()]
        assert all(call.successful() for call in calls if call.ready())
        for client in waiting:
            with pytest.raises(Unanswered):
                client.call(operation, ident, 0.1)
        assert "connections taken" in refusal(CLUSTER_ID, own_server.address)
        assert len(waiting) == sum(not call.ready() for call in calls) == 65 - CONNECTIONS
    finally:
        gevent.joinall([gevent.spawn(client.close) for client in clients], timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("release", "fits"), [("0.17.9", True), ("0.99.0", True), ("0.16.70", False), ("0.17.8", False)]
)
def test_a_client_newer_than_the_cluster_is_refused_before_it_is_evicted(
    release: str, fits: bool
) -> None:
    if fits:
        preflight.check_release(release)
    else:
        with pytest.raises(Refusal, match=f"expected at most the cluster's {release}"):
            preflight.check_release(release)


@pytest.mark.parametrize(("workers", "fits"), [(1, True), (15, True), (16, False), (33, False)])
def test_more_workers_than_connections_are_refused(workers: int, fits: bool) -> None:
    if fits:
        preflight.check_sessions(workers, clients_per_worker=2)
    else:
        with pytest.raises(Refusal, match=f"expected at most 15 .* found {workers}"):
            preflight.check_sessions(workers, clients_per_worker=2)
