"""The state machine where a scenario cannot reach: its clock, its hot path, many expiries."""

from __future__ import annotations

import random

import pytest

import tigerbeetle_emulator
from tests.emulator import records
from tests.emulator.differential.runner import Side
from tests.emulator.differential.workload import Workload
from tests.emulator.native import Reply
from tests.emulator.world import LedgerBackend, World
from tigerbeetle_emulator.ledger import plain
from tigerbeetle_emulator.ledger.ledger import EXPIRED_PER_PULSE, Ledger

_SECOND = 1_000_000_000


def _world(now: int = 1_700_000_000 * _SECOND) -> tuple[World, LedgerBackend]:
    backend = LedgerBackend(tigerbeetle_emulator)
    backend.now = now
    return World(backend), backend


def test_a_timeout_beyond_the_end_of_time_overflows() -> None:
    world, _ = _world(records.U63_MAX - 100 * _SECOND)
    world.given({"id": 1}, {"id": 2})
    assert world.transfers({"id": 1, "flags": 2, "timeout": 200}) == [53]
    assert world.transfers({"id": 1, "flags": 2, "timeout": 90}) == [records.CREATED]


@pytest.mark.parametrize(("early", "status"), [(1, 59), (0, 59), (-1, records.CREATED)])
def test_an_imported_time_is_before_the_batch_s_own(early: int, status: int) -> None:
    world, backend = _world()
    world.given({"id": 1}, {"id": 2})
    last = backend.now + 1_000_000 + 1  # of the next request, with one event
    assert world.transfers({"id": 1, "flags": 256, "timestamp": last + early}) == [status]


def test_expiries_have_timestamps_of_their_own_in_order() -> None:
    world, backend = _world()
    world.given({"id": 1}, {"id": 2})
    world.moved(*({"id": n, "flags": 2, "timeout": 1 + n % 3} for n in range(1, 10)))
    world.sleep(10)
    last = backend.timestamp
    events = world.query(records.GET_CHANGE_EVENTS, timestamp_min=world.timestamp + 1)
    assert [event["type"] for event in events] == [4] * 9
    # By time of expiry, then by age.
    assert [event["transfer_id"] for event in events] == [3, 6, 9, 1, 4, 7, 2, 5, 8]
    assert [event["timestamp"] for event in events] == list(range(last - 8, last + 1))


def test_a_pulse_expires_only_so_many() -> None:
    world, backend = _world()
    world.given({"id": 1}, {"id": 2})
    count = EXPIRED_PER_PULSE + 10
    for first in range(1, count + 1, 4000):
        numbers = range(first, min(first + 4000, count + 1))
        world.moved(*({"id": n, "flags": 2, "timeout": 1} for n in numbers))
    world.sleep(5)
    assert world.balances(1)[0] == 10
    assert backend.ledger.next_expiry() is not None
    world.sleep(1)
    assert world.balances(1)[0] == 0


def test_a_resolution_comes_too_late_even_before_the_expiry() -> None:
    world, backend = _world()
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1, "amount": 5, "flags": 2, "timeout": 1})
    backend.now += 2 * _SECOND  # time passes, and nobody has looked
    assert world.transfers({"id": 2, "pending_id": 1, "amount": 5, "flags": 4}) == [35]
    assert world.balances(1)[0] == 5


class _Recorder:
    """A native client's stand-in that executes in a ledger of this process."""

    def __init__(self) -> None:
        self.backend = LedgerBackend(tigerbeetle_emulator)

    def request(self, operation: int, body: bytes) -> Reply:
        timestamp, data = self.backend.execute(operation, body)
        return Reply(0, timestamp, data)

    submit = request


@pytest.mark.parametrize("seed", range(6))
def test_the_hot_path_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Workload(seed).steps(400)

    def said() -> list[object]:
        side = Side(_Recorder(), 1)  # type: ignore[arg-type]
        return [side.normalise(step, side.submit(step)) for step in steps]

    with_hot_path = said()
    monkeypatch.setattr(plain, "creator", lambda *_: lambda first: first)
    assert said() == with_hot_path


def test_the_hot_path_takes_what_is_ordinary_and_stops_at_what_is_not() -> None:
    ordinary = {"debit_account_id": 1, "credit_account_id": 2, "amount": 1, "ledger": 1, "code": 1}
    for change in [
        {"flags": 2},
        {"flags": 1 << 15},
        {"timeout": 1},
        {"timeout": 1 << 31},
        {"timestamp": 1},
        {"pending_id": 1},
        {"pending_id": 1 << 127},
        {"amount": 1 << 64},
    ]:
        rows = [ordinary, ordinary, ordinary | change, ordinary]
        batch = b"".join(
            records.pack(records.TRANSFER, id=n, **row) for n, row in enumerate(rows, 1)
        )
        marks = plain.unusual(memoryview(batch))
        assert [bool(any(marks[n : n + 8])) for n in range(0, 32, 8)] == [False, False, True, False]
    everything_else = records.pack(
        records.TRANSFER,
        id=2**128 - 1,
        debit_account_id=2**128 - 1,
        credit_account_id=2**128 - 1,
        amount=2**64 - 1,
        user_data_128=2**128 - 1,
        user_data_64=2**64 - 1,
        user_data_32=2**32 - 1,
        ledger=2**32 - 1,
        code=2**16 - 1,
    )
    assert plain.unusual(memoryview(everything_else * 3)) == b""


def test_replaying_the_same_requests_builds_the_same_ledger() -> None:
    generator = random.Random(5)
    bodies = []
    for first in range(1, 400, 4):
        events = [
            {
                "id": first + n,
                "debit_account_id": generator.randint(1, 5),
                "credit_account_id": generator.randint(1, 5),
                "amount": generator.randint(0, 50),
                "ledger": 1,
                "code": 1,
                "flags": generator.choice([0, 0, 1, 2, 16]),
            }
            for n in range(4)
        ]
        bodies.append(b"".join(records.pack(records.TRANSFER, **event) for event in events))
    ledgers = []
    for _ in range(2):
        backend = LedgerBackend(tigerbeetle_emulator)
        world = World(backend, namespace=0)
        world.given(*({"id": n, "flags": 2 if n == 3 else 0} for n in range(1, 6)))
        replies = [backend.execute(records.CREATE_TRANSFERS, body) for body in bodies]
        ledger: Ledger = backend.ledger
        ledgers.append((replies, ledger.records, [each.pack() for each in ledger.account_order]))
    assert ledgers[0] == ledgers[1]
    posted = [sum(a.debits_posted for a in ledger.account_order), 0]
    posted[1] = sum(a.credits_posted for a in ledger.account_order)
    assert posted[0] == posted[1] > 0
