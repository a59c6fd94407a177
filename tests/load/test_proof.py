"""The checker is checked: an honest history passes, and each way to break one is convicted.

Every conviction must name the transfer, or nobody can act on it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtests.client.records import CREATED, UNANSWERED
from loadtests.proof.proof import Proof, verdict_of
from loadtests.proof.record import Part, Record
from loadtests.run.result import Check
from tests.load.ledgers import ANN, BOB, FEES, FUNDING, TAG, World, honest


def name_of(low: int) -> str:
    return hex(TAG << 64 | low)


@pytest.mark.parametrize("page_size", [1, 3, 100])
def test_an_honest_history_passes_whatever_the_pages(page_size: int) -> None:
    checks = honest().checks(page_size)
    assert {name: c.detail for name, c in checks.items() if c.verdict != "passed"} == {}


def test_what_was_unanswered_is_resolved_both_ways() -> None:
    detail = honest().checks()["unknown resolved"].detail
    assert detail == "2 unanswered: 1 committed, 1 absent"


def drop_acknowledgement(world: World) -> None:
    """The answer to transfer 3 never made it into the record, nor did the transfer."""
    world.lines = [line for line in world.lines if line[0][0] != 3]


def lose_transfer(world: World) -> None:
    """Acknowledged, then gone."""
    world.stored = [row for row in world.stored if row[0] != 3]


def double_id(world: World) -> None:
    """Created twice, and acknowledged so both times."""
    sent = next(line[0] for line in world.lines if line[0][0] == 3)
    world.lines.append((sent, CREATED, world.clock + 5))
    world.store(sent, world.clock + 5)


def store_twice(world: World) -> None:
    """The ledger holds one id at two timestamps."""
    world.stored.append(next(r for r in world.stored if r[0] == 3)[:120] + b"\xff" * 4 + bytes(4))


def alter_amount(world: World) -> None:
    """251 instead of 250."""
    world.stored = [
        row[:48] + (251).to_bytes(16, "little") + row[64:] if row[0] == 3 else row
        for row in world.stored
    ]


def swap_accounts(world: World) -> None:
    """The money went the other way."""
    world.stored = [
        row[:16] + row[32:48] + row[16:32] + row[48:] if row[0] == 3 else row
        for row in world.stored
    ]


def move_in_time(world: World) -> None:
    """Stored at another timestamp than the acknowledgement said."""
    world.stored = [
        row[:120] + (int.from_bytes(row[120:], "little") + 1).to_bytes(8, "little")
        if row[0] == 3
        else row
        for row in world.stored
    ]


def lose_unanswered_leg(world: World) -> None:
    """A chain without an answer, of which only the first leg was stored."""
    world.send(40, ANN, BOB, 1, answer=UNANSWERED, chain=(40, TAG), flags=1)
    world.send(41, ANN, FEES, 1, answer=UNANSWERED, chain=(40, TAG), lands=False)


def lose_leg(world: World) -> None:
    """A chain whose second leg is gone."""
    world.stored = [row for row in world.stored if row[0] != 11]


def keep_refused(world: World) -> None:
    """Refused, and stored all the same."""
    sent = next(line[0] for line in world.lines if line[0][0] == 4)
    world.store(sent, world.clock + 5)


def forge(world: World) -> None:
    """A transfer of this run that nobody sent."""
    sent = bytearray(world.lines[2][0])
    sent[0] = 99
    world.store(bytes(sent), world.clock + 5)


def alter_unknown(world: World) -> None:
    """Committed without an answer, with another amount than was sent."""
    world.stored = [
        row[:48] + (9).to_bytes(16, "little") + row[64:] if row[0] == 30 else row
        for row in world.stored
    ]


def settle_twice(world: World) -> None:
    """One hold captured and then voided."""
    world.send(50, ANN, BOB, 500, flags=8, pending=(20, TAG))


@pytest.mark.parametrize(
    ("breach", "check", "low"),
    [
        (drop_acknowledgement, "nothing else", 3),
        (lose_transfer, "acknowledged", 3),
        (double_id, "once", 3),
        (store_twice, "once", 3),
        (alter_amount, "acknowledged", 3),
        (swap_accounts, "acknowledged", 3),
        (move_in_time, "acknowledged", 3),
        (lose_leg, "chains whole", 11),
        (lose_unanswered_leg, "chains whole", 41),
        (keep_refused, "nothing else", 4),
        (forge, "nothing else", 99),
        (alter_unknown, "unknown resolved", 30),
        (settle_twice, "holds settled", 20),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_broken_history_is_convicted_and_the_transfer_named(
    breach: Callable[[World], None], check: str, low: int
) -> None:
    world = honest()
    breach(world)
    assert check in world.failed
    assert name_of(low) in world.failed[check]


def test_an_altered_amount_is_told_with_both_values() -> None:
    world = honest()
    alter_amount(world)
    assert "amount sent 250, stored 251" in world.failed["acknowledged"]


def test_an_overdrawn_wallet_is_named() -> None:
    world = honest()
    world.balances[BOB][0] = world.balances[BOB][1] + 1
    assert name_of(BOB) in world.failed["no overdraft"]


def test_the_outside_world_may_owe() -> None:
    world = honest()
    assert world.balances[FUNDING][0] > world.balances[FUNDING][1]
    assert "no overdraft" not in world.failed


@pytest.mark.parametrize("side", [0, 1])
def test_a_balance_off_by_one_is_named_with_both_values(side: int) -> None:
    world = honest()
    world.balances[ANN][side] += 1
    detail = world.failed["balances"]
    assert name_of(ANN) in detail
    assert f"expected {world.balances[ANN][side] - 1}, found {world.balances[ANN][side]}" in detail


def test_a_balance_above_64_bits_is_compared_in_full() -> None:
    world = honest()
    world.balances[BOB][1] += 1 << 70
    assert name_of(BOB) in world.failed["balances"]


def test_money_from_nowhere_breaks_conservation() -> None:
    world = honest()
    world.balances[FEES][1] += 1
    assert "ledger 978" in world.failed["conservation"]


def test_a_hold_that_never_ends_is_named_by_its_account() -> None:
    world = honest()
    world.balances[ANN][2] = world.balances[BOB][3] = 60
    assert name_of(ANN) in world.failed["holds settled"]


def test_a_missing_account_is_named() -> None:
    world = honest()
    proof = Proof(Record([Part(world.record())], TAG))
    asked = world.accounts()
    checks = {c.name: c for c in proof.finish(asked[asked["id"][:, 0] != ANN], asked)}
    assert name_of(ANN) in checks["balances"].detail


def test_only_open_holds_are_waited_for() -> None:
    world = honest()
    proof = Proof(Record([Part(world.record())], TAG))
    for row in sorted(world.stored, key=lambda row: row[120:][::-1]):
        proof.add_page(np_page(row))
    created_at = next(t for sent, _, t in world.lines if sent[0] == 24)
    assert proof.last_expiry_ns() == created_at + 1_000_000_000


def np_page(row: bytes):  # type: ignore[no-untyped-def]
    import numpy as np

    from loadtests.client.records import TRANSFER

    return np.frombuffer(row, TRANSFER)


def test_an_empty_run_with_an_empty_ledger_passes() -> None:
    assert World().failed == {}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passed", "passed"], "passed"),
        (["passed", "unknown"], "unknown"),
        (["unknown", "failed"], "failed"),
        ([], "unknown"),
    ],
)
def test_the_verdict_is_never_passed_when_something_could_not_be_read(
    verdicts: list[str], expected: str
) -> None:
    checks = [Check(name="x", verdict=v, detail="") for v in verdicts]  # type: ignore[arg-type]
    assert verdict_of(checks) == expected
