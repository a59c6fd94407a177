"""Never mute: what makes a client wait or fail is told, through standard `logging`."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tigerbeetle as tb

import tigerbeetle_emulator
from tests.emulator import raw, records, servers
from tests.emulator.raw import RawClient
from tests.emulator.watched import eventually, warned
from tigerbeetle_emulator.protocol.wire import EvictionReason, Frame
from tigerbeetle_emulator.server.notices import Notices

_LOOKUP = raw.multi_batch(records.LOOKUP_ACCOUNTS, [records.pack(records.ID, id=1)])
_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)


@pytest.fixture
def cluster() -> Iterator[tigerbeetle_emulator.Emulator]:
    with tigerbeetle_emulator.run() as emulator:
        yield emulator


def _port(cluster: tigerbeetle_emulator.Emulator) -> int:
    return int(cluster.address.split(",")[0].rpartition(":")[2])


def _ask(client: RawClient, **fields: int) -> raw.Answer | None:
    try:
        return client.ask(raw.REGISTER, bytes(256), **fields)
    except raw.Closed:
        return None


# -- what makes a client wait or fail --------------------------------------------------------------


def test_the_official_client_of_another_cluster_is_named_once_while_it_tries(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tigerbeetle_emulator")
    client = tb.ClientSync(7, cluster.address)
    eventually(lambda: sum("cluster 7" in record.getMessage() for record in caplog.records) > 1)
    client.close()
    (words,) = warned(caplog, "cluster")
    assert re.fullmatch(
        r"client [0-9a-f]+ asks for cluster 7, this is cluster 0: "
        r"it waits for ever, until it is made with cluster id 0",
        words,
    )


def test_each_client_of_another_cluster_is_named(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    for client_id in (0xA, 0xB, 0xA):
        with RawClient(_port(cluster), cluster=3, client=client_id) as client:
            assert _ask(client) is None
    with RawClient(_port(cluster), cluster=3, client=0xC) as client, pytest.raises(raw.Closed):
        client.ping()
    eventually(lambda: len(warned(caplog, "cluster 3")) == 3)
    named = [re.search(r"client (\w+) ", words) for words in warned(caplog, "cluster 3")]
    assert [found and found[1] for found in named] == ["a", "b", "c"]


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_client_for_which_there_is_no_room_is_told_of_each_time_the_room_is_full(
    replicas: int, caplog: pytest.LogCaptureFixture
) -> None:
    words = "32 clients are connected, .*: another waits until one of them closes"
    with tigerbeetle_emulator.run(replicas=replicas) as cluster:
        clients = [RawClient(_port(cluster)) for _ in range(32)]
        for client in clients:
            assert client.ping() is not None
        assert warned(caplog, "clients") == []
        for _ in range(3):
            with RawClient(_port(cluster)) as surplus:
                assert _ask(surplus) is None
        assert len(warned(caplog, words)) == 1
        clients[0].close()
        eventually(lambda: _is_served(clients, _port(cluster)))
        with RawClient(_port(cluster)) as surplus:
            assert _ask(surplus) is None
        for client in clients:
            client.close()
    assert len(warned(caplog, words)) >= 2


def _is_served(clients: list[RawClient], port: int) -> bool:
    clients[0] = RawClient(port)
    try:
        return clients[0].ping() is not None
    except raw.Closed:
        return False


def test_a_full_relay_says_so(tmp_path: Path) -> None:
    ports = tuple(servers.free_port() for _ in range(2))
    relay = servers.ServerProcess(
        servers.EMULATOR, tmp_path, replica=1, ports=ports, options=("--development",)
    )
    ledger = servers.ServerProcess(servers.EMULATOR, tmp_path, ports=ports)
    clients: list[RawClient] = []
    try:
        ledger.start()
        relay.start()
        for _ in range(8):
            clients.append(RawClient(ports[1]))
            clients[-1].register()
        with RawClient(ports[1]) as surplus:
            assert _ask(surplus) is None
        assert "warning(relay): 8 clients are connected" in relay.log
    finally:
        for client in clients:
            client.close()
        relay.stop()
        ledger.stop()


def test_a_client_that_is_too_new_is_told_of_with_what_to_install(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    with RawClient(_port(cluster), client=0xA) as client:
        answer = client.ask(raw.REGISTER, bytes(256), release=0x1200)  # 0.18.0
    assert answer is not None
    assert answer.reason == 3
    (words,) = warned(caplog, "evicted")
    assert "client a of release 0.18.0 evicted" in words
    assert "tigerbeetle==0.17.9" in words


def test_a_client_that_is_too_old_is_told_of(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    with RawClient(_port(cluster)) as client:
        assert client.ask(raw.REGISTER, bytes(256), release=0x1003) is not None
    (words,) = warned(caplog, "evicted")
    assert "release 0.16.3 evicted" in words
    assert "0.16.4" in words


def test_a_session_that_had_to_give_way_is_told_of_when_its_client_asks(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    clients = []
    for number in range(1, 66):
        with RawClient(_port(cluster), client=number) as client:
            client.register()
            clients.append(client)
    assert warned(caplog, "") == []
    for client, how_often in ((clients[0], 2), (clients[1], 1)):
        for _ in range(how_often):
            client.reconnect()
            client.ask(records.LOOKUP_ACCOUNTS, _LOOKUP)
            client.close()
    (words,) = warned(caplog, "evicted")
    assert re.search(r"client 1 of .*\(no_session\).*64 sessions are kept", words)


@pytest.mark.parametrize(
    ("operation", "reason"), [(200, "does not exist"), (records.CREATE_ACCOUNTS, "malformed")]
)
def test_a_request_that_costs_the_session_is_told_of(
    cluster: tigerbeetle_emulator.Emulator,
    caplog: pytest.LogCaptureFixture,
    operation: int,
    reason: str,
) -> None:
    with RawClient(_port(cluster)) as client:
        client.register()
        assert client.ask(operation, b"\1") is not None
    assert len(warned(caplog, reason)) == 1


@pytest.mark.parametrize("reason", EvictionReason)
def test_every_reason_to_evict_has_words(
    reason: EvictionReason, caplog: pytest.LogCaptureFixture
) -> None:
    frame = Frame(b"", b"", 256, 0, 0x1109, raw.REQUEST, 0, True)
    Notices("test").evicted(frame, bytes(255) + bytes([reason]))
    (words,) = warned(caplog, rf"\({reason.name.lower()}\): .")
    assert "{" not in words


def test_damaged_bytes_are_told_of_every_time(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with RawClient(_port(cluster)) as client:
            client.send(bytes(256))
            with pytest.raises(raw.Closed):
                client.receive()
    assert len(warned(caplog, r"127\.0\.0\.1:\d+: header checksum mismatch, closed")) == 2


def test_what_goes_well_is_no_warning(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RawClient(_port(cluster)) as client:
        client.register()
        client.batches(records.CREATE_ACCOUNTS, [_ACCOUNT])
        client.ask(records.LOOKUP_ACCOUNTS, _LOOKUP, request=9)  # too far ahead: dropped
    cluster.stop()
    cluster.start()
    assert warned(caplog, "") == []
    assert any("dropped" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("fault", ["drop_replies", "refuse", "evict"])
def test_a_fault_on_request_is_told_of_below_warnings(
    cluster: tigerbeetle_emulator.Emulator, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO, "tigerbeetle_emulator")
    setattr(cluster.faults, fault, 1.0)
    with RawClient(_port(cluster)) as client:
        _ask(client)
    eventually(lambda: any("on request" in each.getMessage() for each in caplog.records))
    assert warned(caplog, "") == []


def test_without_any_configuration_a_warning_is_on_stderr() -> None:
    script = """
import socket, tigerbeetle_emulator
with tigerbeetle_emulator.run() as cluster:
    with socket.create_connection(("127.0.0.1", int(cluster.address.split(":")[1]))) as client:
        client.sendall(bytes(256))
        client.recv(1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.fullmatch(r"127\.0\.0\.1:\d+: header checksum mismatch, closed\n", done.stderr)
