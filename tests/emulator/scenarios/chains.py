"""Linked chains: all or nothing, and nothing left behind."""

from __future__ import annotations

from tests.emulator.records import CREATED, GET_ACCOUNT_TRANSFERS
from tests.emulator.world import World

_LINKED = 1


def _accounts(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3, "flags": 2})


def a_whole_chain_is_created(world: World) -> None:
    _accounts(world)
    world.moved({"id": 1, "flags": _LINKED}, {"id": 2, "flags": _LINKED}, {"id": 3})
    assert world.balances(1) == (0, 3, 0, 0)


def a_failing_member_takes_the_chain_with_it(world: World) -> None:
    _accounts(world)
    statuses = world.transfers(
        {"id": 1},
        {"id": 2, "flags": _LINKED},
        {"id": 3, "flags": _LINKED, "code": 0},
        {"id": 4, "flags": _LINKED},
        {"id": 5},
        {"id": 6},
    )
    assert statuses == [CREATED, 1, 20, 1, 1, CREATED]
    assert world.balances(1) == (0, 2, 0, 0)
    assert [world.transfer(number) for number in (2, 3, 4, 5)] == [None] * 4
    found = world.query(GET_ACCOUNT_TRANSFERS, account_id=1, flags=3)
    assert [each["id"] for each in found] == [1, 6]
    # Only the member that broke the chain for a passing reason would have lost its id.
    world.moved({"id": 2}, {"id": 3}, {"id": 4}, {"id": 5})


def a_chain_must_be_closed(world: World) -> None:
    _accounts(world)
    assert world.transfers({"id": 1, "flags": _LINKED}) == [2]
    assert world.transfers({"id": 2}, {"id": 3, "flags": _LINKED}, {"id": 4, "flags": _LINKED}) == [
        CREATED,
        1,
        2,
    ]
    assert world.transfers({"id": 5, "flags": _LINKED, "code": 0}, {"id": 6, "flags": _LINKED}) == [
        20,
        2,
    ]
    assert world.balances(1) == (0, 1, 0, 0)
    assert world.accounts({"id": 9, "flags": _LINKED}) == [2]


def an_existing_member_breaks_the_chain(world: World) -> None:
    _accounts(world)
    world.moved({"id": 1, "flags": _LINKED}, {"id": 2})
    results = world.transfer_results({"id": 1, "flags": _LINKED}, {"id": 3})
    assert [result["status"] for result in results] == [46, 1]
    assert world.transfers({"id": 4, "flags": _LINKED}, {"id": 2}) == [1, 46]
    assert world.balances(1) == (0, 2, 0, 0)


def the_breaker_of_a_chain_loses_its_id_and_nobody_else(world: World) -> None:
    _accounts(world)
    poor = {"debit_account_id": 3, "credit_account_id": 1, "amount": 5}
    assert world.transfers({"id": 1, "flags": _LINKED}, {"id": 2, **poor}) == [1, 54]
    world.moved({"id": 3, "credit_account_id": 3, "amount": 9})
    assert world.transfers({"id": 2, **poor}, {"id": 1}) == [68, CREATED]


def a_member_sees_what_earlier_members_did(world: World) -> None:
    _accounts(world)
    world.moved(
        {"id": 1, "credit_account_id": 3, "amount": 5, "flags": _LINKED},
        {"id": 2, "debit_account_id": 3, "amount": 5},
    )
    assert world.transfers(
        {"id": 3, "credit_account_id": 3, "amount": 5, "flags": _LINKED},
        {"id": 4, "debit_account_id": 3, "amount": 6},
    ) == [1, 54]
    assert world.balances(3) == (0, 5, 0, 5)


def an_undone_resolution_is_pending_again(world: World) -> None:
    _accounts(world)
    world.moved({"id": 1, "amount": 5, "flags": 2}, {"id": 2, "amount": 6, "flags": 2})
    assert world.transfers(
        {"id": 3, "pending_id": 1, "amount": 5, "flags": 4 | _LINKED},
        {"id": 4, "pending_id": 2, "flags": 8 | _LINKED},
        {"id": 5, "code": 0},
    ) == [1, 1, 20]
    assert world.balances(1) == (11, 0, 0, 0)
    world.moved({"id": 3, "pending_id": 1, "amount": 5, "flags": 4})
    world.moved({"id": 4, "pending_id": 2, "flags": 8})
    assert world.balances(1) == (0, 5, 0, 0)


def an_undone_hold_is_gone_with_its_timeout(world: World) -> None:
    _accounts(world)
    assert world.transfers(
        {"id": 1, "amount": 5, "flags": 2 | 64 | _LINKED, "timeout": 1},
        {"id": 2, "pending_id": 1, "flags": 8 | _LINKED},
        {"id": 3, "code": 0},
    ) == [1, 1, 20]
    assert world.balances(1) == (0, 0, 0, 0)
    assert world.account(1)["flags"] == 0
    world.moved({"id": 4, "amount": 7, "flags": 2}, {"id": 5, "amount": 1})
    world.sleep(1.5)
    assert world.balances(1) == (7, 1, 0, 0)
    assert world.transfers({"id": 6, "pending_id": 1, "flags": 8}) == [25]


def an_undone_closing_leaves_the_account_open(world: World) -> None:
    _accounts(world)
    assert world.transfers(
        {"id": 1, "amount": 0, "flags": 2 | 64 | 128 | _LINKED}, {"id": 2, "amount": 1}
    ) == [1, 65]
    assert (world.account(1)["flags"], world.account(2)["flags"]) == (0, 0)
    world.moved({"id": 3, "amount": 1})


def accounts_are_undone_too(world: World) -> None:
    assert world.accounts(
        {"id": 1, "flags": _LINKED},
        {"id": 2, "flags": _LINKED},
        {"id": 1, "flags": _LINKED},
        {"id": 4},
        {"id": 5},
    ) == [1, 1, 21, 1, CREATED]
    assert world.run(140, [{"id": 1}, {"id": 2}, {"id": 4}]) == []
    world.given({"id": 1, "flags": _LINKED}, {"id": 2})


def the_timestamp_of_an_undone_member_stays_its_own(world: World) -> None:
    _accounts(world)
    results = world.transfer_results(
        {"id": 1, "flags": _LINKED}, {"id": 2, "flags": _LINKED}, {"id": 3, "ledger": 0}
    )
    last = world.timestamp
    assert [result["timestamp"] for result in results] == [last - 2, last - 1, last]
