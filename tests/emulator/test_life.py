"""A test's life with the emulator: an empty ledger, a state to come back to, chosen limits."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records, servers
from tests.emulator.book import POST, Book, port_of
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient

SECOND = 1_000_000_000
CREATED = records.CREATED
EXISTS = 46


# -- reset ----------------------------------------------------------------------------------------


def test_a_reset_empties_the_ledger_and_nobody_reconnects() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as one, Book(cluster) as other:
        for _ in range(3):
            assert one.accounts() == other.accounts() == []
            assert one.open() == [CREATED] * 2
            assert other.pay(1)["status"] == CREATED  # the same id each time
            assert one.pay(1)["status"] == EXISTS
            assert other.hold(2, seconds=1)["status"] == CREATED
            cluster.reset()
            assert one.events() == []


def test_the_official_client_goes_on_after_a_reset() -> None:
    account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
    with (
        tigerbeetle_emulator.run(replicas=3) as cluster,
        NativeClient(cluster.cluster_id, cluster.address) as client,
    ):
        for _ in range(3):
            reply = client.request(records.CREATE_ACCOUNTS, account)
            assert int.from_bytes(reply.data[8:12], "little") == CREATED
            cluster.reset()


def test_a_reply_that_was_lost_before_a_reset_is_told_after_it() -> None:
    account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
    body = raw.multi_batch(records.CREATE_ACCOUNTS, [account])
    with tigerbeetle_emulator.run() as cluster, RawClient(port_of(cluster)) as client:
        client.register()
        message = client.request_bytes(records.CREATE_ACCOUNTS, body)
        client.send(message)
        first = client.receive()
        cluster.reset()
        client.send(message)
        assert client.receive() == first


def test_a_reset_takes_back_the_time_that_was_advanced() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        real = time.time_ns()
        cluster.advance(timedelta(days=365))
        book.open()
        cluster.reset()
        book.open()
        assert real < book.pay(1)["timestamp"] < real + 3600 * SECOND


def test_a_reset_forgets_what_a_lie_remembers() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        cluster.faults.stale_reads = 1.0
        assert len(book.accounts()) == 2
        cluster.reset()
        assert book.accounts() == []
        book.open()
        assert book.accounts() == []  # still stale, of the ledger there is


def test_a_stopped_server_is_reset_too() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        cluster.stop()
        cluster.reset()
        cluster.start()
        book.reconnect()
        assert book.accounts() == []


# -- snapshot and restore -------------------------------------------------------------------------


def test_a_snapshot_is_come_back_to_as_often_as_wanted() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        book.pay(1, amount=10)
        book.hold(2, seconds=7 * 86_400, amount=5)
        accounts, events = book.accounts(), book.events()
        snapshot = cluster.snapshot()
        for number in range(3, 6):
            assert book.pay(number)["status"] == CREATED
            assert book.pay(9, amount=5, flags=POST, pending_id=2)["status"] == CREATED
            cluster.advance(timedelta(days=30))
            cluster.restore(snapshot)
            assert (book.accounts(), book.events()) == (accounts, events)
        cluster.advance(timedelta(days=6))
        assert book.pending() == 5
        cluster.advance(timedelta(days=1))
        assert book.pending() == 0


def test_a_snapshot_serves_another_emulator() -> None:
    with tigerbeetle_emulator.run() as one, Book(one) as book:
        book.open()
        one.advance(timedelta(days=365))
        paid = book.pay(1, amount=10)["timestamp"]
        accounts, snapshot = book.accounts(), one.snapshot()
    with tigerbeetle_emulator.run(cluster=7) as other, Book(other) as book:
        other.restore(snapshot)
        assert book.accounts() == accounts
        assert paid < book.pay(2)["timestamp"] < paid + 60 * SECOND


def test_what_is_no_snapshot_is_refused_and_changes_nothing() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        with pytest.raises(TypeError, match=r"expected what snapshot\(\) returned, found b'x'"):
            cluster.restore(b"x")  # type: ignore[arg-type]
        assert len(book.accounts()) == 2


def test_a_ledger_with_a_data_file_is_neither_reset_nor_restored(tmp_path: Path) -> None:
    """Its file would tell otherwise at the next start."""
    with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster, Book(cluster) as book:
        book.open()
        with pytest.raises(RuntimeError, match=r"expected a ledger in memory, found .*data"):
            cluster.reset()
        with pytest.raises(RuntimeError, match=r"expected a ledger in memory, found .*data"):
            cluster.restore(cluster.snapshot())
        assert len(book.accounts()) == 2


# -- where it listens -----------------------------------------------------------------------------


def test_a_chosen_port_is_listened_on() -> None:
    port = servers.free_port()
    with tigerbeetle_emulator.run(port=port) as cluster, Book(cluster) as book:
        assert cluster.address == f"127.0.0.1:{port}"
        assert book.open() == [CREATED] * 2


def test_chosen_addresses_are_listened_on_and_are_one_ledger() -> None:
    ports = [servers.free_port() for _ in range(3)]
    addresses = ",".join(map(str, ports))  # as the genuine server takes them
    with tigerbeetle_emulator.run(addresses=addresses) as cluster:
        assert cluster.address == ",".join(f"127.0.0.1:{port}" for port in ports)
        for port in ports:
            with RawClient(port) as client:
                client.register()


@pytest.mark.filterwarnings("error")  # a socket left open
def test_a_port_that_is_taken_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match=rf"127.0.0.1:{taken.getsockname()[1]}.* a free port is taken"),
        tigerbeetle_emulator.run(port=taken.getsockname()[1]),
    ):
        pass


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"replicas": 0}, "replicas: expected 1..6, found 0"),
        ({"replicas": 7}, "replicas: expected 1..6, found 7"),
        ({"port": 65536}, "port: expected 0..65535, found 65536"),
        ({"port": -1}, "port: expected 0..65535, found -1"),
        ({"port": 3000, "replicas": 3}, "port: expected addresses for 3 replicas"),
        ({"port": 3000, "addresses": "3001"}, "addresses: expected neither port nor"),
        ({"addresses": "3001,3002", "replicas": 3}, "addresses: expected neither port nor"),
        ({"addresses": "localhost:3001"}, "expected an IP address"),
        ({"addresses": ""}, "expected an "),
        ({"cluster": -1}, "cluster: expected an unsigned 128-bit integer, found -1"),
        ({"cluster": 1 << 128}, "cluster: expected an unsigned 128-bit integer"),
        ({"limit_pipeline_requests": 58}, "limit_pipeline_requests: expected 0..57, found 58"),
        ({"limit_pipeline_requests": -1}, "limit_pipeline_requests: expected 0..57, found -1"),
        ({"limit_request": 4095}, "limit_request: expected 4096..1048576 bytes, found 4095"),
        ({"limit_request": 1048577}, "limit_request: expected 4096..1048576 bytes"),
        ({"limit_request": "32KiB"}, "limit_request: expected 4096..1048576 bytes, found 32KiB"),
    ],
)
def test_an_impossible_argument_is_refused_before_anything_is_made(
    wrong: dict[str, int], found: str, tmp_path: Path
) -> None:
    with (
        pytest.raises(ValueError, match=found),
        tigerbeetle_emulator.run(path=tmp_path / "data", **wrong),  # type: ignore[arg-type]
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# -- the genuine limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "clients"),
    [
        ({}, 32),
        ({"development": True}, 8),
        ({"limit_pipeline_requests": 0}, 8),
        ({"limit_pipeline_requests": 3, "development": True}, 11),
        ({"limit_pipeline_requests": 57}, 65),
    ],
)
def test_as_many_clients_are_served_as_the_genuine_server_serves(
    chosen: dict[str, int], clients: int
) -> None:
    with tigerbeetle_emulator.run(**chosen) as cluster:  # type: ignore[arg-type]
        served = [RawClient(port_of(cluster)) for _ in range(clients + 1)]
        for client in served[:clients]:
            client.register()
        with pytest.raises(raw.Closed):
            served[clients].receive()
        for client in served:
            client.close()


@pytest.mark.parametrize(
    ("chosen", "size"),
    [
        ({}, 1 << 20),
        ({"development": True}, 32 << 10),
        ({"limit_request": 4096}, 4096),
        ({"limit_request": 1 << 16, "development": True}, 1 << 16),
    ],
)
def test_a_registration_tells_the_largest_request(chosen: dict[str, int], size: int) -> None:
    with (
        tigerbeetle_emulator.run(**chosen) as cluster,  # type: ignore[arg-type]
        RawClient(port_of(cluster)) as client,
    ):
        assert int.from_bytes(client.register().body[:4], "little") == size - raw.HEADER


# -- TB_ADDRESS -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, "3000"])
def test_the_address_is_exported_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("TB_ADDRESS", raising=False)
    if before:
        monkeypatch.setenv("TB_ADDRESS", before)
    with tigerbeetle_emulator.run(export=True, replicas=2) as cluster:
        assert os.environ["TB_ADDRESS"] == cluster.address
        with tigerbeetle_emulator.run() as other:
            assert os.environ["TB_ADDRESS"] == cluster.address != other.address
    assert os.environ.get("TB_ADDRESS") == before
