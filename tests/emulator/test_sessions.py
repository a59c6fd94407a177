"""Sessions and connections: replies that chain, the idlest that gives way, the limits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records, servers
from tests.emulator.raw import RawClient

_LOOKUP = records.LOOKUP_ACCOUNTS
_BODY = raw.multi_batch(_LOOKUP, [records.pack(records.ID, id=1)])
_ACCOUNT = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)


@pytest.fixture(scope="module")
def emulator_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with servers.emulator(tmp_path_factory.mktemp("emulator")) as server:
        yield server.ports[0]


def test_replies_chain_and_count(emulator_port: int) -> None:
    with RawClient(emulator_port) as client:
        first = client.register()
        assert first.body[:4] == (1048320).to_bytes(4, "little")
        last = first
        for _ in range(3):
            answer = client.request(_LOOKUP, _BODY)
            assert answer.commit == last.commit + 1
            assert answer.timestamp > last.timestamp
            assert answer.number(208, 8) == answer.commit
            last = answer


def test_batches_of_a_request_are_executed_in_order_with_their_own_chains(
    emulator_port: int,
) -> None:
    with RawClient(emulator_port) as client:
        client.register()
        base = 10**6
        account = [
            records.pack(records.ACCOUNT, id=base + n, ledger=1, code=1, flags=n & 1)
            for n in range(4)
        ]
        answer = client.batches(
            records.CREATE_ACCOUNTS,
            [account[0] + account[1], b"", account[2] + account[0], account[3]],
        )
        results = [
            records.unpack(records.CREATE_RESULT, batch)
            for batch in raw.split_batches(answer.body, 16)
        ]
        statuses = [[result["status"] for result in batch] for batch in results]
        assert statuses == [[records.CREATED, 2], [], [records.CREATED, 21], [2]]
        moments = [result["timestamp"] for batch in results for result in batch]
        last = answer.timestamp
        assert moments == [last - 4, last - 3, last - 2, last - 4, last]


def test_the_idlest_of_64_sessions_gives_way() -> None:
    with tigerbeetle_emulator.run() as cluster:
        port = int(cluster.address.rpartition(":")[2])
        clients = []
        for _ in range(64):
            with RawClient(port) as client:
                client.register()
                clients.append(client)
        first, second = clients[:2]
        first.reconnect()
        first.request(_LOOKUP, _BODY)
        with RawClient(port) as newest:
            newest.register()
            second.reconnect()
            answer = second.ask(_LOOKUP, _BODY)
            assert answer is not None
            assert answer.reason == 1
            first.request(_LOOKUP, _BODY)
            newest.request(_LOOKUP, _BODY)
        first.close()
        second.close()


def test_a_reply_is_resent_byte_for_byte(emulator_port: int) -> None:
    with RawClient(emulator_port) as client:
        client.register()
        data = client.request_bytes(_LOOKUP, _BODY)
        client.send(data)
        first = client.receive()
        client.reconnect()
        client.send(data)
        assert client.receive() == first


def _served_at_last(port: int) -> bool:
    """Whether a new client is served, once the server has noticed that another is gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with RawClient(port) as client, contextlib.suppress(raw.Closed):
            return client.ping() is not None
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("options", "served"),
    [((), 32), (("--development",), 8), (("--experimental", "--limit-pipeline-requests=2"), 10)],
)
def test_clients_above_the_limit_are_closed_at_once(
    tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...], served: int
) -> None:
    with servers.emulator(tmp_path_factory.mktemp("emulator"), *options) as server:
        clients = [RawClient(server.ports[0]) for _ in range(served)]
        for client in clients:
            assert client.ping() is not None
        with RawClient(server.ports[0]) as surplus, pytest.raises(raw.Closed):
            surplus.register()
        clients[0].close()
        assert _served_at_last(server.ports[0])
        for client in clients[1:]:
            client.close()


def test_development_shrinks_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        servers.emulator(tmp_path_factory.mktemp("emulator"), "--development") as server,
        RawClient(server.ports[0]) as client,
    ):
        assert client.register().body[:4] == (32512).to_bytes(4, "little")
        client.batches(records.CREATE_ACCOUNTS, [_ACCOUNT * 253])
        too_many = raw.multi_batch(records.CREATE_ACCOUNTS, [_ACCOUNT * 254])
        answer = client.ask(records.CREATE_ACCOUNTS, too_many)
        assert answer is not None
        assert answer.reason == 6
        assert client.ask(raw.REQUEST, b"") is None
