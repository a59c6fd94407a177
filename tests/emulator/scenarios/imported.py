"""Imported events: timestamps of the past, in order."""

from __future__ import annotations

from tests.emulator.records import CREATED, U63_MAX
from tests.emulator.world import World

_ACCOUNT, _TRANSFER = 16, 256
_FUTURE = 1 << 62


def a_batch_is_imported_or_not_as_its_first_event_says(world: World) -> None:
    assert world.accounts({"id": 1}, {"id": 2, "flags": _ACCOUNT, "timestamp": 5}) == [CREATED, 23]
    past = world.timestamp
    assert world.accounts(
        {"id": 3, "flags": _ACCOUNT, "timestamp": past + 1}, {"id": 4}, {"id": 5, "timestamp": 1}
    ) == [CREATED, 22, 22]
    world.given({"id": 2})
    assert world.transfers({"id": 1}, {"id": 2, "flags": _TRANSFER, "timestamp": 5}) == [
        CREATED,
        57,
    ]
    past = world.timestamp
    assert world.transfers({"id": 3, "flags": _TRANSFER, "timestamp": past + 1}, {"id": 4}) == [
        CREATED,
        56,
    ]
    # The rule about the batch comes before anything else is looked at.
    assert world.transfers({"id": 0}, {"id": 0, "flags": _TRANSFER | 512}) == [5, 57]


def an_imported_timestamp_lies_in_the_past(world: World) -> None:
    for timestamp, account, transfer in [
        (0, 24, 58),
        (U63_MAX + 1, 24, 58),
        (2**64 - 1, 24, 58),
        (U63_MAX, 25, 59),
        (_FUTURE, 25, 59),
    ]:
        assert world.accounts({"id": 0, "flags": _ACCOUNT, "timestamp": timestamp}) == [account]
        assert world.transfers({"id": 0, "flags": _TRANSFER, "timestamp": timestamp}) == [transfer]


def imported_accounts_come_in_order(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    past = world.timestamp
    results = world.run(
        146,
        [
            {"id": 3, "ledger": 1, "code": 1, "flags": _ACCOUNT, "timestamp": past + 10},
            {"id": 4, "ledger": 1, "code": 1, "flags": _ACCOUNT, "timestamp": past + 10},
            {"id": 5, "ledger": 1, "code": 1, "flags": _ACCOUNT, "timestamp": past + 9},
            {"id": 6, "ledger": 1, "code": 1, "flags": _ACCOUNT, "timestamp": past + 11},
            {"id": 3, "ledger": 1, "code": 1, "flags": _ACCOUNT, "timestamp": past + 1},
        ],
    )
    world.seen["accounts"].update(result["status"] for result in results)
    assert [result["status"] for result in results] == [CREATED, 26, 26, CREATED, 21]
    assert results[0]["timestamp"] == past + 10
    assert results[3]["timestamp"] == past + 11
    assert results[4]["timestamp"] == past + 10
    found = world.account(3)
    assert (found["timestamp"], found["flags"]) == (past + 10, _ACCOUNT)


def an_imported_account_avoids_the_times_of_transfers(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1})
    taken = world.timestamp
    assert world.accounts({"id": 3, "flags": _ACCOUNT, "timestamp": taken}) == [26]
    assert world.accounts({"id": 3, "flags": _ACCOUNT, "timestamp": taken + 1}) == [CREATED]


def imported_transfers_come_in_order(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1})
    past = world.timestamp
    results = world.transfer_results(
        {"id": 2, "flags": _TRANSFER, "timestamp": past},
        {"id": 3, "flags": _TRANSFER, "timestamp": past + 5},
        {"id": 4, "flags": _TRANSFER, "timestamp": past + 5},
        {"id": 5, "flags": _TRANSFER, "timestamp": past + 6},
        {"id": 3, "flags": _TRANSFER, "timestamp": past + 1},
    )
    assert [result["status"] for result in results] == [60, CREATED, 60, CREATED, 46]
    assert results[1]["timestamp"] == results[4]["timestamp"] == past + 5
    assert world.balances(1) == (0, 3, 0, 0)


def an_imported_transfer_avoids_the_times_of_accounts(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1})
    world.given({"id": 3})
    taken = world.timestamp
    assert world.transfers({"id": 2, "flags": _TRANSFER, "timestamp": taken}) == [60]
    assert world.transfers({"id": 2, "flags": _TRANSFER, "timestamp": taken + 1}) == [CREATED]


def an_imported_transfer_is_younger_than_its_accounts(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1})
    between = world.timestamp + 1
    world.given({"id": 3})
    late = {"flags": _TRANSFER, "timestamp": between}
    assert world.transfers({"id": 2, "debit_account_id": 3, **late}) == [61]
    assert world.transfers({"id": 3, "credit_account_id": 3, **late}) == [62]
    assert world.transfers({"id": 4, **late}) == [CREATED]


def an_imported_hold_cannot_time_out(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    past = world.timestamp
    hold = {"id": 1, "flags": _TRANSFER | 2, "timestamp": past + 1, "amount": 5}
    assert world.transfers(hold | {"timeout": 1}) == [63]
    assert world.transfers(hold) == [CREATED]
    past = world.timestamp
    post = {"id": 2, "flags": _TRANSFER | 4, "pending_id": 1, "amount": 5}
    assert world.transfers(post | {"timestamp": past - 1_000_000_000}) == [60]
    assert world.transfers(post | {"timestamp": past + 1}) == [CREATED]
    assert world.balances(1) == (0, 5, 0, 0)


def an_undone_import_leaves_its_time_free(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    past = world.timestamp
    imported = {"flags": _TRANSFER, "timestamp": past + 100}
    assert world.transfers(
        {"id": 1, **imported, "flags": _TRANSFER | 1},
        {"id": 2, "code": 0, **imported, "timestamp": past + 101},
    ) == [1, 20]
    assert world.transfers({"id": 3, **imported, "timestamp": past + 50}) == [CREATED]
    account = {"flags": _ACCOUNT, "timestamp": past + 200}
    assert world.accounts(
        {"id": 4, **account, "flags": _ACCOUNT | 1}, {"id": 5, **account, "code": 0}
    ) == [1, 14]
    assert world.accounts({"id": 6, **account, "timestamp": past + 150}) == [CREATED]
