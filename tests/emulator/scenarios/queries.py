"""Reading back: lookups, filters, orders, limits, histories and change events."""

from __future__ import annotations

from tests.emulator.records import (
    GET_ACCOUNT_BALANCES,
    GET_ACCOUNT_TRANSFERS,
    GET_CHANGE_EVENTS,
    LOOKUP_ACCOUNTS,
    LOOKUP_TRANSFERS,
    QUERY_ACCOUNTS,
    QUERY_TRANSFERS,
    U63_MAX,
    U128_MAX,
    Record,
)
from tests.emulator.world import World


def _ids(found: list[Record]) -> list[int]:
    return [record["id"] for record in found]


def _busy(world: World) -> int:
    """Three accounts and six transfers, with user data; returns the time before them."""
    world.given({"id": 9})
    before = world.timestamp + 1
    world.given({"id": 1, "flags": 8, "user_data_64": 7}, {"id": 2, "user_data_32": 5})
    world.given({"id": 3, "flags": 8, "code": 3, "user_data_128": 9})
    world.moved(
        {"id": 1, "amount": 1, "user_data_128": 6, "code": 2},
        {"id": 2, "debit_account_id": 2, "credit_account_id": 1, "amount": 2, "code": 2},
        {"id": 3, "debit_account_id": 2, "credit_account_id": 3, "amount": 3, "user_data_64": 8},
        {"id": 4, "amount": 4, "user_data_32": 4, "user_data_64": 8},
        {"id": 5, "amount": 5, "flags": 2, "user_data_128": 6},
        {"id": 6, "pending_id": 5, "amount": 2, "flags": 4},
    )
    return before


def lookups_keep_the_order_and_skip_the_unknown(world: World) -> None:
    _busy(world)
    wanted = [{"id": number} for number in (3, 77, 1, 1, 0, U128_MAX, 2)]
    assert _ids(world.run(LOOKUP_ACCOUNTS, wanted)) == [3, 1, 1, 2]
    assert _ids(world.run(LOOKUP_TRANSFERS, wanted)) == [3, 1, 1, 2]
    assert world.run(LOOKUP_ACCOUNTS, []) == []


def account_transfers_by_side_order_and_limit(world: World) -> None:
    _busy(world)

    def found(**fields: int) -> list[int]:
        return _ids(world.query(GET_ACCOUNT_TRANSFERS, account_id=1, **fields))

    assert found(flags=3) == [1, 2, 4, 5, 6]
    assert found(flags=1) == [1, 4, 5, 6]
    assert found(flags=2) == [2]
    assert found(flags=7) == [6, 5, 4, 2, 1]
    assert found(flags=3, limit=2) == [1, 2]
    assert found(flags=7, limit=2) == [6, 5]
    assert found(flags=3, code=2) == [1, 2]
    assert found(flags=3, user_data_128=6) == [1, 5, 6]
    assert found(flags=3, user_data_64=8) == [4]
    assert found(flags=3, user_data_32=4, user_data_64=8) == [4]
    assert found(flags=3, user_data_32=4, user_data_64=9) == []


def account_transfers_by_time(world: World) -> None:
    _busy(world)
    second = world.transfer(2)
    assert second
    moment = second["timestamp"]

    def found(**fields: int) -> list[int]:
        return _ids(world.query(GET_ACCOUNT_TRANSFERS, account_id=1, flags=3, **fields))

    assert found(timestamp_min=moment) == [2, 4, 5, 6]
    assert found(timestamp_min=moment + 1) == [4, 5, 6]
    assert found(timestamp_max=moment) == [1, 2]
    assert found(timestamp_max=moment - 1) == [1]
    assert found(timestamp_min=moment, timestamp_max=moment) == [2]
    assert found(timestamp_min=moment + 1, timestamp_max=moment) == []


def an_invalid_filter_finds_nothing(world: World) -> None:
    before = _busy(world)
    for operation in (GET_ACCOUNT_TRANSFERS, GET_ACCOUNT_BALANCES):
        valid = {"account_id": 1, "flags": 3}
        assert world.query(operation, **valid) != []
        for wrong in (
            {"limit": 0},
            {"account_id": 0},
            {"account_id": U128_MAX},
            {"account_id": 77},
            {"flags": 0},
            {"flags": 4},
            {"flags": 3 | 8},
            {"reserved": 1},
            {"timestamp_min": U63_MAX + 1},
            {"timestamp_max": U63_MAX + 1},
            {"timestamp_min": 2, "timestamp_max": 1},
        ):
            assert world.query(operation, **(valid | wrong)) == [], wrong
    for operation in (QUERY_ACCOUNTS, QUERY_TRANSFERS):
        valid = {"timestamp_min": before}
        assert world.query(operation, **valid) != []
        for wrong in (
            {"limit": 0},
            {"flags": 2},
            {"reserved": 1 << 40},
            {"timestamp_min": U63_MAX + 1},
            {"timestamp_max": U63_MAX + 1},
            {"timestamp_max": 1},
        ):
            assert world.query(operation, **(valid | wrong)) == [], wrong
    assert world.query(GET_CHANGE_EVENTS, timestamp_min=before, limit=9) != []
    for wrong in (
        {"limit": 0},
        {"reserved": 1},
        {"timestamp_min": U63_MAX + 1},
        {"timestamp_max": U63_MAX + 1},
        {"timestamp_max": 1},
    ):
        assert world.query(GET_CHANGE_EVENTS, **({"timestamp_min": before} | wrong)) == [], wrong


def query_transfers_by_every_field(world: World) -> None:
    before = _busy(world)

    def found(**fields: int) -> list[int]:
        return _ids(world.query(QUERY_TRANSFERS, timestamp_min=before, **fields))

    assert found() == [1, 2, 3, 4, 5, 6]
    assert found(flags=1) == [6, 5, 4, 3, 2, 1]
    assert found(flags=1, limit=2) == [6, 5]
    assert found(user_data_128=6) == [1, 5, 6]
    assert found(user_data_64=8) == [3, 4]
    assert found(user_data_32=4) == [4]
    assert found(code=2) == [1, 2]
    assert found(ledger=1, code=2, limit=1) == [1]
    assert found(ledger=2) == []
    third = world.transfer(3)
    assert third
    assert found(timestamp_max=third["timestamp"]) == [1, 2, 3]


def query_accounts_by_every_field(world: World) -> None:
    before = _busy(world)

    def found(**fields: int) -> list[int]:
        return _ids(world.query(QUERY_ACCOUNTS, timestamp_min=before, **fields))

    assert found() == [1, 2, 3]
    assert found(flags=1) == [3, 2, 1]
    assert found(limit=1) == [1]
    assert found(user_data_128=9) == [3]
    assert found(user_data_64=7) == [1]
    assert found(user_data_32=5) == [2]
    assert found(code=3, ledger=1) == [3]
    assert found(code=3, ledger=2) == []
    found_first = world.query(QUERY_ACCOUNTS, timestamp_min=before, limit=1)
    assert found_first[0]["debits_posted"] == 1 + 4 + 2


def balances_after_each_transfer_of_an_account_with_history(world: World) -> None:
    _busy(world)

    def history(number: int, **fields: int) -> list[tuple[int, ...]]:
        found = world.query(GET_ACCOUNT_BALANCES, account_id=number, **{"flags": 3} | fields)
        return [tuple(list(each.values())[:4]) for each in found]

    assert history(1) == [(0, 1, 0, 0), (0, 1, 0, 2), (0, 5, 0, 2), (5, 5, 0, 2), (0, 7, 0, 2)]
    assert history(1, flags=7, limit=1) == [(0, 7, 0, 2)]
    assert history(1, flags=2) == [(0, 1, 0, 2)]
    assert history(3) == [(0, 0, 0, 3)]
    assert history(2) == []
    moments = [each["timestamp"] for each in world.query(143, account_id=1, flags=3)]
    transfers = [each["timestamp"] for each in world.query(142, account_id=1, flags=3)]
    assert moments == transfers


def change_events_tell_what_happened(world: World) -> None:
    world.given({"id": 1, "user_data_64": 5}, {"id": 2, "code": 7})
    before = world.timestamp + 1
    world.moved(
        {"id": 1, "amount": 3, "user_data_32": 9},
        {"id": 2, "amount": 5, "flags": 2, "timeout": 1},
        {"id": 3, "amount": 6, "flags": 2 | 64},
        {"id": 4, "pending_id": 3, "flags": 8},
        {"id": 5, "amount": 8, "flags": 2},
        {"id": 6, "pending_id": 5, "amount": 4, "flags": 4},
    )

    def told() -> list[Record]:
        return world.query(GET_CHANGE_EVENTS, timestamp_min=before, limit=100)

    world.sleep(1.5, until=lambda: len(told()) == 7)
    events = told()
    assert [(each["transfer_id"], each["type"]) for each in events] == [
        (1, 0),
        (2, 1),
        (3, 1),
        (4, 3),
        (5, 1),
        (6, 2),
        (2, 4),
    ]
    assert [each["transfer_amount"] for each in events] == [3, 5, 6, 6, 8, 4, 5]
    assert [each["debit_account_debits_pending"] for each in events] == [0, 5, 11, 5, 13, 5, 0]
    assert [each["debit_account_debits_posted"] for each in events] == [3, 3, 3, 3, 3, 7, 7]
    assert [each["credit_account_credits_pending"] for each in events] == [0, 5, 11, 5, 13, 5, 0]
    assert [each["debit_account_flags"] for each in events] == [0, 0, 32, 0, 0, 0, 0]
    assert {each["credit_account_code"] for each in events} == {7}
    assert {each["debit_account_user_data_64"] for each in events} == {5}
    assert events[0]["transfer_user_data_32"] == 9
    assert [each["transfer_pending_id"] for each in events] == [0, 0, 0, 3, 0, 5, 0]
    moments = [each["timestamp"] for each in events]
    assert moments == sorted(moments)
    assert events[-1]["transfer_timestamp"] == events[1]["timestamp"] < events[-1]["timestamp"]
    first_two = world.query(GET_CHANGE_EVENTS, timestamp_min=before, limit=2)
    assert first_two == events[:2]
    assert (
        world.query(GET_CHANGE_EVENTS, timestamp_min=before, timestamp_max=moments[1]) == events[:2]
    )


def older_clients_read_without_trailers(world: World) -> None:
    before = _busy(world)
    for new, old, fields in [
        (142, 133, {"account_id": 1, "flags": 3, "limit": 9}),
        (143, 134, {"account_id": 1, "flags": 3, "limit": 9}),
        (144, 135, {"timestamp_min": before, "limit": 9}),
        (145, 136, {"timestamp_min": before, "limit": 9}),
        (140, 131, {"id": 1}),
        (141, 132, {"id": 1}),
    ]:
        assert world.run(new, [fields]) == world.run(old, [fields]) != []
