"""Creating accounts: every status, in its order of precedence."""

from __future__ import annotations

from tests.emulator.records import CREATED, U128_MAX
from tests.emulator.world import World

# Each row breaks one more rule than the row before it: the status shows which comes first.
_LATER_RULES_LAST = [
    ({"code": 0}, 14),
    ({"ledger": 0}, 13),
    ({"credits_posted": 1}, 12),
    ({"credits_pending": 1}, 11),
    ({"debits_posted": 1}, 10),
    ({"debits_pending": 1}, 9),
    ({"flags": 2 | 4}, 8),
    ({"id": U128_MAX}, 7),
    ({"id": 0}, 6),
    ({"flags": 2 | 4 | 64}, 5),
    ({"reserved": 1}, 4),
    ({"timestamp": 1}, 3),
]


def each_status_hides_the_ones_after_it(world: World) -> None:
    broken: dict[str, int] = {"id": 1}
    for change, status in _LATER_RULES_LAST:
        broken |= change
        assert world.accounts(broken) == [status], broken


def each_wrong_field_has_its_own_status(world: World) -> None:
    for change, status in _LATER_RULES_LAST:
        assert world.accounts({"id": 1} | change) == [status], change
    for balance in ("debits_pending", "debits_posted", "credits_pending", "credits_posted"):
        assert world.accounts({"id": 1, balance: 1 << 64})[0] in range(9, 13), balance
    for flag in range(6, 16):
        assert world.accounts({"id": 1, "flags": 1 << flag}) == [5], flag


def an_account_is_stored_as_given(world: World) -> None:
    fields = {
        "id": 1,
        "user_data_128": U128_MAX - 7,
        "user_data_64": 2**64 - 5,
        "user_data_32": 2**32 - 3,
        "ledger": 2**32 - 1,
        "code": 2**16 - 1,
        "flags": 2 | 8,
    }
    world.given(fields)
    found = world.account(1)
    assert {name: found[name] for name in fields} == fields
    assert found["timestamp"] == world.run(146, [fields])[0]["timestamp"]


def an_existing_account_names_its_first_difference(world: World) -> None:
    stored = {
        "id": 1,
        "flags": 8,
        "user_data_128": 1,
        "user_data_64": 2,
        "user_data_32": 3,
        "ledger": 4,
        "code": 5,
    }
    world.given(stored)
    again = dict(stored)
    assert world.accounts(again) == [21]
    for change, status in [
        ({"code": 6}, 20),
        ({"ledger": 6}, 19),
        ({"user_data_32": 6}, 18),
        ({"user_data_64": 6}, 17),
        ({"user_data_128": 6}, 16),
        ({"flags": 0}, 15),
    ]:
        assert world.accounts(stored | change) == [status], change
        again |= change
        assert world.accounts(again) == [status], again
    # Whether the id is taken is asked before the fields are looked at.
    assert world.accounts({"id": 1, "flags": 6, "ledger": 0, "code": 0}) == [15]
    assert world.accounts(stored | {"debits_pending": 9}) == [21]


def an_account_closed_by_a_transfer_has_different_flags(world: World) -> None:
    world.given({"id": 1}, {"id": 2})
    world.moved({"id": 1, "flags": 2 | 64, "amount": 0})
    assert world.accounts({"id": 1}) == [15]
    assert world.accounts({"id": 1, "flags": 32}) == [21]


def ids_are_taken_within_a_batch_too(world: World) -> None:
    assert world.accounts({"id": 1}, {"id": 1}, {"id": 1, "code": 2}) == [CREATED, 21, 20]


def a_created_closed_account_refuses_transfers(world: World) -> None:
    world.given({"id": 1, "flags": 32}, {"id": 2})
    assert world.transfers({"id": 1}) == [65]
    assert world.transfers({"id": 2, "debit_account_id": 2, "credit_account_id": 1}) == [66]
