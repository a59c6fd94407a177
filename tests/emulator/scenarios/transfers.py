"""Creating plain transfers: every status in its order, balances, limits, balancing, duplicates."""

from __future__ import annotations

from tests.emulator.records import CREATED, U128_MAX
from tests.emulator.world import World

# Each row breaks one more rule than the row before it: the status shows which comes first.
_LATER_RULES_LAST = [
    ({"ledger": 2}, 24),
    ({"credit_account_id": 3, "ledger": 3}, 23),
    ({"credit_account_id": 99}, 22),
    ({"debit_account_id": 98}, 21),
    ({"code": 0}, 20),
    ({"ledger": 0}, 19),
    ({"flags": 64}, 64),
    ({"timeout": 1}, 17),
    ({"pending_id": 1}, 13),
    ({"debit_account_id": 99}, 12),
    ({"credit_account_id": U128_MAX}, 11),
    ({"credit_account_id": 0}, 10),
    ({"debit_account_id": U128_MAX}, 9),
    ({"debit_account_id": 0}, 8),
    ({"id": U128_MAX}, 6),
    ({"id": 0}, 5),
    ({"flags": 64 | 512}, 4),
    ({"timestamp": 1}, 3),
]


def _accounts(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3, "ledger": 2})


def each_status_hides_the_ones_after_it(world: World) -> None:
    _accounts(world)
    broken: dict[str, int] = {}
    for number, (change, status) in enumerate(_LATER_RULES_LAST):
        # 21 and 22 use the id up, so every row has a fresh one unless it is about the id.
        broken |= {"id": 100 + number} if broken.get("id", 1) not in (0, U128_MAX) else {}
        broken |= change
        assert world.transfers(broken) == [status], broken


def each_wrong_field_has_its_own_status(world: World) -> None:
    _accounts(world)
    for number, (change, status) in enumerate(_LATER_RULES_LAST):
        row = {"id": 100 + number} | change
        if status == 12:
            row["credit_account_id"] = 99
        assert world.transfers(row) == [status], change
    for flag in range(9, 16):
        assert world.transfers({"id": 1, "flags": 1 << flag}) == [4], flag
    assert world.transfers({"id": 1, "flags": 128}) == [64]


def an_amount_moves_between_posted_balances(world: World) -> None:
    _accounts(world)
    world.moved({"id": 1, "amount": 7}, {"id": 2, "amount": 1 << 64})
    world.moved({"id": 3, "debit_account_id": 2, "credit_account_id": 1, "amount": 3})
    total = 7 + (1 << 64)
    assert world.balances(1) == (0, total, 0, 3)
    assert world.balances(2) == (0, 3, 0, total)


def an_amount_of_zero_is_a_transfer(world: World) -> None:
    _accounts(world)
    world.moved({"id": 1, "amount": 0})
    found = world.transfer(1)
    assert found and found["amount"] == 0
    assert world.balances(1) == (0, 0, 0, 0)


def a_transfer_is_stored_as_given(world: World) -> None:
    _accounts(world)
    fields = {
        "id": 1,
        "debit_account_id": 2,
        "credit_account_id": 1,
        "amount": 5,
        "user_data_128": U128_MAX - 7,
        "user_data_64": 2**64 - 5,
        "user_data_32": 2**32 - 3,
        "timeout": 2**32 - 1,
        "ledger": 1,
        "code": 2**16 - 1,
        "flags": 2,
    }
    world.moved(fields)
    found = world.transfer(1)
    assert found and {name: found[name] for name in fields} == fields
    assert found["timestamp"] == world.timestamp


def an_account_never_exceeds_its_limit(world: World) -> None:
    world.given({"id": 1, "flags": 2}, {"id": 2, "flags": 4}, {"id": 3})
    assert world.transfers({"id": 1, "credit_account_id": 3}) == [54]
    assert world.transfers({"id": 2, "debit_account_id": 3}) == [55]
    world.moved({"id": 3, "debit_account_id": 3, "credit_account_id": 1, "amount": 10})
    world.moved({"id": 4, "credit_account_id": 3, "amount": 4, "flags": 2})
    assert world.transfers({"id": 5, "credit_account_id": 3, "amount": 7}) == [54]
    world.moved({"id": 6, "credit_account_id": 3, "amount": 6})
    assert world.transfers({"id": 7, "credit_account_id": 3, "amount": 1}) == [54]
    world.moved({"id": 8, "credit_account_id": 3, "amount": 0})
    world.moved({"id": 9, "debit_account_id": 2, "credit_account_id": 3, "amount": 10})
    world.moved({"id": 10, "debit_account_id": 3, "amount": 4, "flags": 2})
    assert world.transfers({"id": 11, "debit_account_id": 3, "amount": 7}) == [55]
    world.moved({"id": 12, "debit_account_id": 3, "amount": 6})
    # Both limits at once: the debit side is named.
    assert world.transfers({"id": 13, "amount": 1}) == [54]


def a_transient_failure_uses_the_id_up(world: World) -> None:
    world.given({"id": 1, "flags": 2}, {"id": 2})
    assert world.transfers({"id": 1}) == [54]
    world.moved({"id": 9, "debit_account_id": 2, "credit_account_id": 1, "amount": 10})
    assert world.transfers({"id": 1}, {"id": 1, "amount": 2}) == [68, 68]
    assert world.transfer(1) is None
    assert world.transfers({"id": 2, "debit_account_id": 7}) == [21]
    assert world.transfers({"id": 3, "credit_account_id": 7}) == [22]
    world.given({"id": 7})
    assert world.transfers({"id": 2}, {"id": 3}) == [68, 68]
    # Even then, what is wrong before the id is looked up comes first.
    assert world.transfers({"id": 2, "flags": 512}, {"id": 2, "timestamp": 1}) == [4, 3]
    # A failure that cannot pass leaves the id free.
    assert world.transfers({"id": 4, "code": 0}) == [20]
    assert world.transfers({"id": 4}) == [CREATED]


def a_sum_of_exactly_two_to_the_128_overflows(world: World) -> None:
    world.given(*({"id": number} for number in range(1, 7)))
    half = 1 << 127
    world.moved({"id": 1, "amount": half, "flags": 2}, {"id": 2, "amount": half - 1, "flags": 2})
    assert world.transfers({"id": 4, "credit_account_id": 3, "flags": 2}) == [47]
    assert world.transfers({"id": 6, "debit_account_id": 3, "flags": 2}) == [48]
    assert world.transfers({"id": 7, "credit_account_id": 3}) == [51]
    assert world.transfers({"id": 8, "debit_account_id": 3}) == [52]
    world.moved({"id": 9, "debit_account_id": 4, "credit_account_id": 5, "amount": U128_MAX})
    assert world.transfers({"id": 10, "debit_account_id": 4, "credit_account_id": 6}) == [49]
    assert world.transfers({"id": 11, "debit_account_id": 6, "credit_account_id": 5}) == [50]
    assert world.transfers(
        {"id": 12, "debit_account_id": 4, "credit_account_id": 6, "flags": 2}
    ) == [49]
    assert world.transfers(
        {"id": 13, "debit_account_id": 6, "credit_account_id": 5, "flags": 2}
    ) == [50]
    world.moved({"id": 14, "debit_account_id": 4, "credit_account_id": 5, "amount": 0})


def a_sum_of_pending_and_posted_just_fits(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "amount": U128_MAX - 5, "flags": 2}, {"id": 2, "amount": 5})
    assert world.transfers({"id": 3, "credit_account_id": 3}) == [51]
    assert world.transfers({"id": 4, "debit_account_id": 3}) == [52]
    assert world.balances(1) == (U128_MAX - 5, 5, 0, 0)


def a_balancing_transfer_takes_what_is_there(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "debit_account_id": 3, "credit_account_id": 1, "amount": 10})
    world.moved({"id": 2, "credit_account_id": 3, "amount": 2, "flags": 2})
    world.moved({"id": 3, "amount": 3, "flags": 16})
    world.moved({"id": 4, "amount": U128_MAX, "flags": 16})
    world.moved({"id": 5, "amount": U128_MAX, "flags": 16})
    found = [world.transfer(number) for number in (3, 4, 5)]
    assert [each["amount"] for each in found if each] == [3, 5, 0]
    assert world.balances(1) == (2, 8, 0, 10)
    # Balancing the credit side: account 3 has debits 10, credits pending 2.
    world.moved(
        {"id": 6, "debit_account_id": 2, "credit_account_id": 3, "amount": 100, "flags": 32}
    )
    credited = world.transfer(6)
    assert credited and credited["amount"] == 8
    # Both at once: the smaller side decides; account 2 has 8 credits and 8 debits.
    world.moved({"id": 7, "debit_account_id": 2, "credit_account_id": 3, "amount": 9, "flags": 48})
    both = world.transfer(7)
    assert both and both["amount"] == 0
    # Account 3 has spent more than it got, 10 against 8: there is nothing to take.
    world.moved({"id": 8, "debit_account_id": 3, "credit_account_id": 1, "amount": 5, "flags": 16})
    overdrawn = world.transfer(8)
    assert overdrawn and overdrawn["amount"] == 0
    assert world.transfers(
        {"id": 6, "debit_account_id": 2, "credit_account_id": 3, "amount": 8, "flags": 32},
        {"id": 6, "debit_account_id": 2, "credit_account_id": 3, "amount": 900, "flags": 32},
        {"id": 6, "debit_account_id": 2, "credit_account_id": 3, "amount": 7, "flags": 32},
    ) == [46, 46, 39]


def a_pending_balancing_transfer_holds_what_is_there(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "debit_account_id": 3, "credit_account_id": 1, "amount": 10})
    world.moved({"id": 2, "amount": 15, "flags": 2 | 16})
    assert world.balances(1) == (10, 0, 0, 10)


def an_existing_transfer_names_its_first_difference(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    stored = {
        "id": 1,
        "amount": 5,
        "user_data_128": 1,
        "user_data_64": 2,
        "user_data_32": 3,
        "timeout": 1000,
        "ledger": 1,
        "code": 5,
        "flags": 2,
    }
    world.moved(stored)
    assert world.transfers(stored) == [46]
    again = dict(stored)
    for change, status in [
        ({"code": 6}, 45),
        ({"ledger": 6}, 67),
        ({"user_data_32": 6}, 43),
        ({"user_data_64": 6}, 42),
        ({"user_data_128": 6}, 41),
        ({"amount": 6}, 39),
        ({"credit_account_id": 3}, 38),
        ({"debit_account_id": 3}, 37),
        ({"timeout": 6}, 44),
        ({"pending_id": 6}, 40),
        ({"flags": 0}, 36),
    ]:
        assert world.transfers(stored | change) == [status], change
        again |= change
        assert world.transfers(again) == [status], again
    assert world.transfers(stored | {"amount": 4}) == [39]


def a_closed_account_takes_no_transfer(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "amount": 0, "flags": 2 | 64})
    assert world.account(1)["flags"] == 32
    assert world.transfers({"id": 2}) == [65]
    assert world.transfers({"id": 3, "debit_account_id": 2, "credit_account_id": 1}) == [66]
    assert world.transfers({"id": 2}, {"id": 3}) == [68, 68]
    world.moved({"id": 4, "debit_account_id": 2, "credit_account_id": 3, "flags": 2 | 128})
    assert world.account(3)["flags"] == 32
    assert world.account(2)["flags"] == 0
    # Both sides closed: the debit side is named. A closed account comes before limits.
    assert world.transfers({"id": 5, "debit_account_id": 1, "credit_account_id": 3}) == [65]


def each_event_has_its_own_timestamp(world: World) -> None:
    _accounts(world)
    results = world.transfer_results({"id": 1}, {"id": 2, "code": 0}, {"id": 1}, {"id": 3})
    last = world.timestamp
    first = results[0]["timestamp"]
    assert [result["timestamp"] for result in results] == [last - 3, last - 2, first, last]
    assert [result["status"] for result in results] == [CREATED, 20, 46, CREATED]
    assert [result["reserved"] for result in results] == [0, 0, 0, 0]


def older_clients_get_only_the_failures(world: World) -> None:
    for operation in (130, 139):
        base = operation * 10
        world.given({"id": base + 1}, {"id": base + 2})
        plain = {
            "debit_account_id": base + 1,
            "credit_account_id": base + 2,
            "ledger": 1,
            "code": 1,
        }
        events = [
            {"id": base + 1, **plain},
            {"id": base + 2, **plain, "code": 0},
            {"id": base + 1, **plain},
            {"id": base + 3, **plain, "flags": 1},
            {"id": base + 4, **plain, "ledger": 9},
        ]
        assert world.run(operation, events) == [
            {"index": 1, "status": 20},
            {"index": 2, "status": 46},
            {"index": 3, "status": 1},
            {"index": 4, "status": 24},
        ]
        create = operation - 1
        account = {"id": base + 5, "ledger": 1, "code": 1}
        assert world.run(create, [account, account]) == [{"index": 1, "status": 21}]
