"""Two-phase transfers: post, void, expiry, closing and reopening."""

from __future__ import annotations

from tests.emulator.records import CREATED, U128_MAX
from tests.emulator.world import World

_POST, _VOID = 4, 8
_SETTLE_SECONDS = 0.5  # room around an expiry: a server looks every 0.1 s

# Each row breaks one more rule than the row before it: the status shows which comes first.
_LATER_RULES_LAST: list[tuple[dict[str, int | str], int]] = [
    ({"amount": 11}, 31),
    ({"code": 9}, 30),
    ({"ledger": 9}, 29),
    ({"credit_account_id": 3}, 28),
    ({"debit_account_id": 3}, 27),
    ({"pending_id": 2}, 26),
    ({"pending_id": 99}, 25),
    ({"timeout": 1}, 17),
    ({"pending_id": "own"}, 16),
    ({"pending_id": U128_MAX}, 15),
    ({"pending_id": 0}, 14),
]


def _held(world: World, **fields: int) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "amount": 10, "flags": 2, **fields}, {"id": 2})


def a_pending_amount_is_held_then_posted(world: World) -> None:
    _held(world)
    assert world.balances(1) == (10, 1, 0, 0)
    assert world.balances(2) == (0, 0, 10, 1)
    world.moved({"id": 3, "pending_id": 1, "amount": 4, "flags": _POST})
    assert world.balances(1) == (0, 5, 0, 0)
    assert world.balances(2) == (0, 0, 0, 5)
    found = world.transfer(3)
    assert found and found["amount"] == 4


def a_void_releases_the_whole_amount(world: World) -> None:
    _held(world)
    world.moved({"id": 3, "pending_id": 1, "flags": _VOID})
    assert world.balances(1) == (0, 1, 0, 0)
    found = world.transfer(3)
    assert found and found["amount"] == 10
    world.moved({"id": 4, "amount": 7, "flags": 2})
    world.moved({"id": 5, "pending_id": 4, "amount": 7, "flags": _VOID})
    assert world.balances(2) == (0, 0, 0, 1)


def the_largest_amount_posts_everything_and_zero_nothing(world: World) -> None:
    _held(world)
    world.moved({"id": 3, "pending_id": 1, "amount": U128_MAX, "flags": _POST})
    assert world.balances(1) == (0, 11, 0, 0)
    world.moved({"id": 4, "amount": 7, "flags": 2})
    world.moved({"id": 5, "pending_id": 4, "amount": 0, "flags": _POST})
    assert world.balances(1) == (0, 11, 0, 0)
    world.moved({"id": 6, "amount": 7, "flags": 2})
    world.moved({"id": 7, "pending_id": 6, "amount": 7, "flags": _POST})
    assert world.balances(1) == (0, 18, 0, 0)


def each_status_hides_the_ones_after_it(world: World) -> None:
    _held(world)
    broken: dict[str, int] = {"pending_id": 1, "flags": _POST}
    for number, (change, status) in enumerate(_LATER_RULES_LAST):
        broken["id"] = 100 + number
        broken |= {
            name: broken["id"] if value == "own" else int(value) for name, value in change.items()
        }
        assert world.transfers(broken) == [status], broken
    for extra in (_VOID, 2, 16, 32, 64, 128):
        assert world.transfers(broken | {"flags": _POST | extra}) == [7], extra
    assert world.transfers(broken | {"flags": _VOID | 16}) == [7]


def each_wrong_field_has_its_own_status(world: World) -> None:
    _held(world)
    for number, (change, status) in enumerate(_LATER_RULES_LAST):
        row: dict[str, int] = {"id": 100 + number, "pending_id": 1, "flags": _POST}
        for name, value in change.items():
            row[name] = row["id"] if value == "own" else int(value)
        assert world.transfers(row) == [status], change
    void = {"id": 200, "pending_id": 1, "flags": _VOID}
    assert world.transfers(void | {"amount": 9}, void | {"amount": 11}) == [32, 31]
    assert world.transfers(void | {"amount": 10}) == [CREATED]


def a_pending_transfer_is_resolved_once(world: World) -> None:
    _held(world)
    world.moved({"id": 3, "pending_id": 1, "amount": 10, "flags": _POST})
    assert world.transfers(
        {"id": 4, "pending_id": 1, "amount": 10, "flags": _POST},
        {"id": 5, "pending_id": 1, "flags": _VOID},
        {"id": 6, "pending_id": 1, "amount": 11, "flags": _POST},
    ) == [33, 33, 31]
    world.moved({"id": 7, "amount": 2, "flags": 2}, {"id": 8, "pending_id": 7, "flags": _VOID})
    assert world.transfers(
        {"id": 9, "pending_id": 7, "flags": _VOID},
        {"id": 10, "pending_id": 7, "amount": 1, "flags": _POST},
    ) == [34, 34]


def a_missing_pending_transfer_uses_the_id_up(world: World) -> None:
    _held(world)
    post = {"id": 3, "pending_id": 50, "amount": 1, "flags": _POST}
    assert world.transfers(post) == [25]
    world.moved({"id": 50, "amount": 1, "flags": 2})
    assert world.transfers(post) == [68]
    assert world.transfers(post | {"id": 4}) == [CREATED]
    # A failed id is no pending transfer either.
    assert world.transfers(post | {"id": 5, "pending_id": 3}) == [25]


def a_resolution_inherits_what_it_leaves_zero(world: World) -> None:
    _held(world, user_data_128=5, user_data_64=6, user_data_32=7, code=8, timeout=1000)
    world.moved({"id": 3, "pending_id": 1, "amount": 10, "flags": _POST, "user_data_64": 60})
    found = world.transfer(3)
    expected = {
        "debit_account_id": 1,
        "credit_account_id": 2,
        "pending_id": 1,
        "user_data_128": 5,
        "user_data_64": 60,
        "user_data_32": 7,
        "code": 8,
        "ledger": 1,
        "timeout": 0,
        "flags": _POST,
    }
    assert found and {name: found[name] for name in expected} == expected


def a_resolution_again_names_its_first_difference(world: World) -> None:
    _held(world, user_data_128=5, user_data_64=6, user_data_32=7)
    post = {"id": 3, "pending_id": 1, "amount": 4, "flags": _POST, "user_data_64": 60}
    world.moved(post)
    same = [post, post | {"user_data_128": 5, "user_data_32": 7}]
    same += [post | {"ledger": 1, "code": 1, "debit_account_id": 1, "credit_account_id": 2}]
    assert world.transfers(*same) == [46, 46, 46]
    again = dict(post)
    for change, status in [
        ({"code": 9}, 45),
        ({"ledger": 9}, 67),
        ({"user_data_32": 9}, 43),
        ({"user_data_64": 0}, 42),
        ({"user_data_128": 9}, 41),
        ({"amount": U128_MAX}, 39),
        ({"credit_account_id": 9}, 38),
        ({"debit_account_id": 9}, 37),
        ({"timeout": 9}, 44),
        ({"pending_id": 9}, 40),
        ({"flags": _VOID}, 36),
    ]:
        assert world.transfers(post | change) == [status], change
        again |= change
        assert world.transfers(again) == [status], again
    world.moved({"id": 4, "amount": 6, "flags": 2})
    void = {"id": 5, "pending_id": 4, "flags": _VOID}
    world.moved(void)
    assert world.transfers(void, void | {"amount": 6}, void | {"amount": 5}) == [46, 46, 39]
    world.moved({"id": 6, "amount": 6, "flags": 2})
    full = {"id": 7, "pending_id": 6, "amount": U128_MAX, "flags": _POST}
    world.moved(full)
    assert world.transfers(full, full | {"amount": 6}, full | {"amount": 0}) == [46, 46, 39]


def a_timeout_releases_the_amount(world: World) -> None:
    world.given({"id": 1, "flags": 2 | 8}, {"id": 2, "flags": 8}, {"id": 3})
    world.moved({"id": 1, "debit_account_id": 2, "credit_account_id": 1, "amount": 10})
    world.moved(
        {"id": 2, "amount": 6, "flags": 2, "timeout": 1},
        {"id": 3, "amount": 3, "flags": 2, "timeout": 100},
    )
    assert world.balances(1) == (9, 0, 0, 10)
    assert world.transfers({"id": 4, "amount": 2}) == [54]
    world.sleep(1 + _SETTLE_SECONDS, until=lambda: world.balances(1)[0] == 3)
    assert world.balances(1) == (3, 0, 0, 10)
    assert world.balances(2) == (0, 10, 3, 0)
    assert world.transfers(
        {"id": 5, "pending_id": 2, "amount": 6, "flags": _POST},
        {"id": 6, "pending_id": 2, "flags": _VOID},
    ) == [35, 35]
    world.moved({"id": 7, "amount": 7})
    world.moved({"id": 8, "pending_id": 3, "amount": 3, "flags": _POST})
    assert world.balances(1) == (0, 10, 0, 10)


def a_resolved_transfer_does_not_expire(world: World) -> None:
    _held(world, timeout=1)
    world.moved({"id": 3, "amount": 5, "flags": 2, "timeout": 1})
    world.moved({"id": 4, "pending_id": 1, "amount": 10, "flags": _POST})
    world.moved({"id": 5, "pending_id": 3, "flags": _VOID})
    world.sleep(1 + _SETTLE_SECONDS)
    assert world.balances(1) == (0, 11, 0, 0)
    assert world.transfers({"id": 6, "pending_id": 1, "amount": 1, "flags": _POST}) == [33]
    assert world.transfers({"id": 7, "pending_id": 3, "flags": _VOID}) == [34]


def voiding_and_expiry_reopen_what_a_transfer_closed(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "amount": 0, "flags": 2 | 64})
    assert world.transfers({"id": 2}) == [65]
    world.moved({"id": 3, "pending_id": 1, "flags": _VOID})
    assert world.account(1)["flags"] == 0
    world.moved({"id": 4, "amount": 1, "flags": 2 | 64 | 128, "timeout": 1})
    assert (world.account(1)["flags"], world.account(2)["flags"]) == (32, 32)
    world.sleep(1 + _SETTLE_SECONDS, until=lambda: world.account(1)["flags"] == 0)
    assert (world.account(1)["flags"], world.account(2)["flags"]) == (0, 0)
    world.moved({"id": 5})


def a_closed_account_still_lets_holds_be_voided(world: World) -> None:
    world.given({"id": 1}, {"id": 2}, {"id": 3})
    world.moved({"id": 1, "amount": 5, "flags": 2}, {"id": 2, "amount": 6, "flags": 2})
    world.moved({"id": 3, "credit_account_id": 3, "amount": 0, "flags": 2 | 64})
    assert world.transfers({"id": 4, "pending_id": 1, "amount": 5, "flags": _POST}) == [65]
    world.moved({"id": 5, "pending_id": 1, "flags": _VOID})
    assert world.account(1)["flags"] == 32
    world.moved({"id": 6, "pending_id": 3, "flags": _VOID})
    world.moved({"id": 7, "debit_account_id": 3, "amount": 0, "flags": 2 | 128})
    assert world.transfers({"id": 8, "pending_id": 2, "amount": 6, "flags": _POST}) == [66]
    assert world.balances(1) == (6, 0, 0, 0)
