"""Queries of large ledgers: in steps, as of the moment they were asked, in little memory."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records
from tests.emulator.differential.runner import Side
from tests.emulator.differential.workload import Workload
from tests.emulator.native import Reply
from tests.emulator.raw import RawClient
from tests.emulator.world import LedgerBackend, World
from tigerbeetle_emulator.ledger import history, queries
from tigerbeetle_emulator.ledger.ledger import Ledger
from tigerbeetle_emulator.ledger.steps import Steps, finish
from tigerbeetle_emulator.protocol.operations import OPERATIONS
from tigerbeetle_emulator.server.loop import Loop
from tigerbeetle_emulator.server.replica import NOTHING, Message, Query

_HISTORY = 8  # the account flag
_BOTH_SIDES = 3


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps so small that a small ledger needs many of them."""
    monkeypatch.setattr(queries, "SCANNED", 10)
    for module in (queries, history):
        monkeypatch.setattr(module, "WALKED", 6)
    monkeypatch.setattr(history, "MARK_EVERY", 2)


class _Recorder:
    """A native client's stand-in that executes here, and notes how."""

    def __init__(self) -> None:
        self.backend = LedgerBackend(tigerbeetle_emulator)
        execute, expire = self.backend.ledger.execute, self.backend.ledger.expire
        self.done: list[tuple[Any, bytes, int, bytes]] = []  # operation, body, timestamp, reply

        def note(operation: Any, body: bytes, timestamp: int) -> bytes:
            reply: bytes = execute(operation, body, timestamp)
            self.done.append((operation, body, timestamp, reply))
            return reply

        def note_expiry(timestamp: int) -> int:
            self.done.append((None, b"", timestamp, b""))
            return expire(timestamp)  # type: ignore[no-any-return]

        self.backend.ledger.execute, self.backend.ledger.expire = note, note_expiry

    def request(self, operation: int, body: bytes) -> Reply:
        timestamp, data = self.backend.execute(operation, body)
        return Reply(0, timestamp, data)

    submit = request


def _recorded(seed: int) -> list[tuple[Any, bytes, int, bytes]]:
    """A random workload, and what a ledger says to it that answers everything at once."""
    recorder = _Recorder()
    side = Side(recorder, 1)  # type: ignore[arg-type]
    for step in Workload(seed).steps(600):
        side.normalise(step, side.submit(step))
        recorder.backend.sleep(step.pause or 0.01)
    return recorder.done


@pytest.mark.parametrize("seed", range(4))
def test_a_query_answers_as_of_its_request_whatever_comes_between_its_steps(
    seed: int, request: pytest.FixtureRequest
) -> None:
    recorded = _recorded(seed)
    request.getfixturevalue("small_steps")
    ledger, under_way, steps = Ledger(), [], 0
    for operation, body, timestamp, expected in recorded:
        if operation is None:
            ledger.expire(timestamp)
        else:
            under_way.append((ledger.begin(operation, body, timestamp), expected))
        # The newest takes its first step at once, as in a server; of the others, one its next.
        for position in {-1, timestamp % len(under_way) if under_way else -1}:
            if not under_way:
                break
            query, expected = under_way[position % len(under_way)]
            taken, reply = _step(query)
            steps += taken
            if not taken:
                assert reply == expected
                under_way.remove((query, expected))
    assert all(finish(query) == said for query, said in under_way)
    assert steps > 100


def _step(query: Steps[bytes]) -> tuple[bool, bytes]:
    """Whether the query has taken another step and gone on, and else its reply."""
    try:
        next(query)
    except StopIteration as end:
        return False, end.value
    return True, b""


def _world(count: int = 100) -> tuple[World, LedgerBackend]:
    backend = LedgerBackend(tigerbeetle_emulator)
    world = World(backend, namespace=0)
    world.given(*({"id": n, "flags": _HISTORY} for n in (1, 2)))
    for first in range(1, count + 1, 8000):
        numbers = range(first, min(first + 8000, count + 1))
        world.moved(*({"id": n, "user_data_64": n} for n in numbers))
    return world, backend


_QUERIES: dict[str, tuple[int, dict[str, int]]] = {
    "nothing is found": (records.QUERY_TRANSFERS, {"code": 9}),
    "nothing is found, backwards": (records.QUERY_TRANSFERS, {"code": 9, "flags": 1}),
    "nothing fits two fields": (records.QUERY_TRANSFERS, {"code": 1, "user_data_64": 999}),
    "all are found": (records.QUERY_TRANSFERS, {}),
    "an account's": (records.GET_ACCOUNT_TRANSFERS, {"account_id": 1, "flags": _BOTH_SIDES}),
    "an account's, none": (
        records.GET_ACCOUNT_TRANSFERS,
        {"account_id": 1, "flags": _BOTH_SIDES, "code": 9},
    ),
    "an account's balances": (
        records.GET_ACCOUNT_BALANCES,
        {"account_id": 1, "flags": _BOTH_SIDES},
    ),
    "an account's last balance": (
        records.GET_ACCOUNT_BALANCES,
        {"account_id": 1, "flags": _BOTH_SIDES | 4, "limit": 1},
    ),
    "all changes": (records.GET_CHANGE_EVENTS, {}),
}


def _begin(backend: LedgerBackend, operation: int, fields: dict[str, int]) -> Steps[bytes]:
    layout = records.OPERATIONS[operation][1]
    limit = 2730 if operation == records.GET_CHANGE_EVENTS else 8189
    body = records.pack(layout, **{"limit": limit, **fields})
    if operation in records.MULTI_BATCH:
        body = raw.multi_batch(operation, [body])
    begun: Steps[bytes] = backend.ledger.begin(OPERATIONS[operation], body, backend.timestamp)
    return begun


@pytest.mark.parametrize("name", _QUERIES)
@pytest.mark.usefixtures("small_steps")
def test_every_query_gives_way_at_least_every_so_many_transfers(name: str) -> None:
    _, backend = _world(100)
    assert len(list(_begin(backend, *_QUERIES[name]))) >= 100 // 10 - 1
    # What was indexed once is not indexed again; what is looked at, is looked at in steps again.
    again = len(list(_begin(backend, *_QUERIES[name])))
    assert again == 0 if "last" in name else again >= 100 // 10 - 1


@pytest.mark.parametrize("name", _QUERIES)
def test_a_query_of_a_small_ledger_is_answered_at_once(name: str) -> None:
    _, backend = _world(50)
    assert list(_begin(backend, *_QUERIES[name])) == []


@pytest.mark.usefixtures("small_steps")
def test_several_filters_of_one_request_see_the_same_ledger() -> None:
    world, backend = _world(50)
    one = records.pack(records.QUERY_FILTER, limit=4000)
    body = raw.multi_batch(records.QUERY_TRANSFERS, [one, one])
    operation = OPERATIONS[records.QUERY_TRANSFERS]
    query = backend.ledger.begin(operation, body, backend.timestamp)
    next(query)
    world.moved({"id": 51})
    first, second = raw.split_batches(finish(query), 128)
    assert first == second
    assert len(first) == 50 * 128


def test_a_query_of_an_unknown_account_leaves_nothing_behind() -> None:
    world, backend = _world(1)
    for operation in (records.GET_ACCOUNT_TRANSFERS, records.GET_ACCOUNT_BALANCES):
        world.query(operation, account_id=1, flags=_BOTH_SIDES)
        before = len(backend.ledger.history._of)
        assert world.query(operation, account_id=77, flags=_BOTH_SIDES) == []
        assert len(backend.ledger.history._of) == before == 2


def test_transfers_with_all_that_queries_need_take_few_bytes() -> None:
    _world(100)  # so that nothing is counted which is loaded once
    count = 20_000
    tracemalloc.start()
    try:
        world, backend = _world(0)
        before, _ = tracemalloc.get_traced_memory()
        for first in range(1, count + 1, 4000):
            world.moved(*({"id": n << 64 | n} for n in range(first, first + 4000)))
        for account_id in (1, 2):
            world.query(records.GET_ACCOUNT_BALANCES, account_id=account_id, flags=_BOTH_SIDES)
        world.query(records.QUERY_TRANSFERS, code=9)
        world.query(records.GET_CHANGE_EVENTS)
        world.seen.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(backend.ledger.timestamps) == count
    assert (after - before) / count <= 400


# -- through a server ------------------------------------------------------------------------------


class Gate:
    """Lets queries take their first step, and the next ones only when `opened` is set."""

    def __init__(self, step: Callable[[Query], Message]) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self._step, self._seen = step, set[int]()

    def step(self, query: Query) -> Message:
        if id(query) in self._seen and not self.opened.is_set():
            return NOTHING
        self._seen.add(id(query))
        try:
            return self._step(query)
        finally:
            self.begun.set()

    def wait_for_a_query(self) -> None:
        assert self.begun.wait(raw.WAIT_SECONDS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate(Query.step)
    monkeypatch.setattr(Query, "step", lambda query: made.step(query))
    return made


_ALL = raw.multi_batch(records.QUERY_TRANSFERS, [records.pack(records.QUERY_FILTER, limit=8000)])


def _filled(client: RawClient) -> None:
    """Two accounts and 100 transfers: ten steps of a query of them all."""
    client.register()
    accounts = [records.pack(records.ACCOUNT, id=n, ledger=1, code=1) for n in (1, 2)]
    client.batches(records.CREATE_ACCOUNTS, [b"".join(accounts)])
    client.batches(records.CREATE_TRANSFERS, [b"".join(map(_transfer, range(1, 101)))])


def _transfer(number: int) -> bytes:
    return records.pack(
        records.TRANSFER,
        id=number,
        debit_account_id=1,
        credit_account_id=2,
        amount=1,
        ledger=1,
        code=1,
    )


def _port(cluster: tigerbeetle_emulator.Emulator) -> int:
    return int(cluster.address.rpartition(":")[2])


@pytest.mark.usefixtures("small_steps")
def test_nobody_waits_for_another_client_s_query(gate: Gate) -> None:
    with (
        tigerbeetle_emulator.run() as cluster,
        RawClient(_port(cluster)) as asking,
        RawClient(_port(cluster)) as other,
    ):
        _filled(asking)
        other.register()
        asking.send(asking.request_bytes(records.QUERY_TRANSFERS, _ALL))
        gate.wait_for_a_query()
        other.batches(records.CREATE_TRANSFERS, [_transfer(101)])
        found = other.batches(records.LOOKUP_TRANSFERS, [records.pack(records.ID, id=101)])
        assert len(raw.split_batches(found.body, 128)[0]) == 128
        assert asking.receive(0.2) is None
        gate.opened.set()
        answer = asking.receive()
        assert answer is not None
        assert answer.commit < found.commit  # it was asked before, and does not see what came then
        assert len(raw.split_batches(answer.body, 128)[0]) == 100 * 128


@pytest.mark.usefixtures("small_steps")
def test_a_query_that_is_asked_again_meanwhile_is_answered_where_its_client_is_now(
    gate: Gate,
) -> None:
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        _filled(client)
        request = client.request_bytes(records.QUERY_TRANSFERS, _ALL)
        client.send(request)
        gate.wait_for_a_query()
        client.reconnect()
        client.send(request)
        assert client.receive(0.2) is None
        gate.opened.set()
        first = client.receive()
        client.send(request)
        assert first is not None
        assert client.receive() == first
        assert len(raw.split_batches(first.body, 128)[0]) == 100 * 128


@pytest.mark.usefixtures("small_steps")
def test_a_query_outlives_a_stop_of_the_server(gate: Gate) -> None:
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        _filled(client)
        request = client.request_bytes(records.QUERY_TRANSFERS, _ALL)
        client.send(request)
        gate.wait_for_a_query()
        cluster.stop()
        gate.opened.set()
        cluster.start()
        client.reconnect()
        client.send(request)
        answer = client.receive()
        assert answer is not None
        assert len(raw.split_batches(answer.body, 128)[0]) == 100 * 128


@pytest.mark.usefixtures("small_steps")
def test_a_restart_from_the_data_file_repeats_the_reply_to_a_query(tmp_path: Path) -> None:
    path = tmp_path / "0.tigerbeetle"
    with tigerbeetle_emulator.run(path=path) as cluster, RawClient(_port(cluster)) as client:
        _filled(client)
        request = client.request_bytes(records.QUERY_TRANSFERS, _ALL)
        client.send(request)
        first = client.receive()
        identity = client.client
    with (
        tigerbeetle_emulator.run(path=path) as cluster,
        RawClient(_port(cluster), client=identity) as client,
    ):
        client.send(request)
        assert client.receive() == first


@pytest.mark.usefixtures("small_steps")
def test_however_many_ask_the_others_wait_for_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    step, wake = Query.step, Loop._on_woken

    def noted_step(query: Query) -> Message:
        happened.append("step")
        return step(query)

    def noted_wake(loop: Loop, events: int) -> None:
        happened.append("turn")
        wake(loop, events)
        happened.append("end")

    monkeypatch.setattr(Query, "step", noted_step)
    monkeypatch.setattr(Loop, "_on_woken", noted_wake)
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        _filled(client)
        others = [RawClient(_port(cluster)) for _ in range(5)]
        client.others += others
        for other in others:
            other.register()
        for other in others:
            other.send(other.request_bytes(records.QUERY_TRANSFERS, _ALL))
        answers = [other.receive() for other in others]
    assert all(answer and len(answer.body) > 100 * 128 for answer in answers)
    turns = " ".join(happened).split("turn ")[1:]
    assert sum(turn.startswith("step") for turn in turns) > 5 * 9
    assert not any(turn.startswith("step step") for turn in turns)
