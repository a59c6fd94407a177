"""A ledger moved into a new cluster: the plan row by row, and the wait for holds that run out."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import tigerbeetle as tb
from hypothesis import given
from hypothesis import strategies as st

from cluster.operate import migrate, migration
from cluster.operate.migration import batches, differences, plan
from cluster.refusal import Refusal
from loadtests.client.records import ACCOUNT, LINKED, PENDING, POST, TRANSFER, Array

SECOND = 10**9
NOW = 10**6 * SECOND
IMPORTED = int(tb.TransferFlags.IMPORTED)


def accounts(count: int = 2, **fields: int) -> Array:
    rows = np.zeros(count, ACCOUNT)
    rows["id"][:, 0] = rows["timestamp"] = np.arange(1, count + 1)
    rows["ledger"] = rows["code"] = 1
    for name, value in fields.items():
        rows[name] = value
    return rows


def transfers(*rows: dict[str, int]) -> Array:
    """Transfers from account 1 to 2, ids 1, 2, ...; what a dict says is different."""
    made = np.zeros(len(rows), TRANSFER)
    for index, row in enumerate(rows):
        given = {"id": index + 1, "debit_account_id": 1, "credit_account_id": 2, "amount": 5}
        given |= {"ledger": 1, "code": 1, "timestamp": (100 + index) * SECOND} | row
        for name, value in given.items():
            made[name][index] = (value, 0) if made.dtype[name].shape else value
    return made


def test_accounts_are_created_without_balances_and_transfers_as_they_were() -> None:
    old = accounts(debits_posted=5, flags=2)
    planned = plan(old, transfers({}, {}), NOW)
    assert planned.accounts["debits_posted"].sum() == 0
    assert set(planned.accounts["flags"]) == {2 | migration.ACCOUNT_IMPORTED}
    assert list(planned.transfers["timestamp"]) == [100 * SECOND, 101 * SECOND]
    assert set(planned.transfers["flags"]) == {IMPORTED}
    assert old["debits_posted"].any()  # the source's own rows are what the proof compares with


def test_a_hold_that_was_posted_keeps_its_place_without_its_time_limit() -> None:
    held = {"flags": PENDING, "timeout": 60}
    planned = plan(accounts(), transfers(held, {"flags": POST, "pending_id": 1}), NOW)
    assert planned.left_out == 0
    assert list(planned.transfers["timeout"]) == [0, 0]


def test_a_hold_that_ran_out_is_left_out_and_counted() -> None:
    planned = plan(accounts(), transfers({}, {"flags": PENDING, "timeout": 60}, {}), NOW)
    assert planned.left_out == 1
    assert list(planned.transfers["id"][:, 0]) == [1, 3]


def test_a_hold_without_a_time_limit_goes_on() -> None:
    planned = plan(accounts(), transfers({"flags": PENDING}), NOW)
    assert (planned.left_out, len(planned.transfers)) == (0, 1)


@pytest.mark.parametrize("timeout", [100, 10**6])
def test_a_hold_that_may_still_run_out_is_refused(timeout: int) -> None:
    alive = transfers({"flags": PENDING, "timeout": timeout})
    with pytest.raises(Refusal, match=r"found 1\. Fix: post or void them, or try again in"):
        plan(accounts(), alive, 190 * SECOND)


class Clock:
    """The time that ``migrate`` sees; sleeping lets it pass, and the source's accounts change."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns, self.slept = now_ns, 0.0

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / SECOND

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now_ns += int(seconds * SECOND)


class Source:
    """A cluster with holds, each with its time limit, all placed at ``NOW``; and ``later`` ones."""

    name = "FROM"

    def __init__(self, *timeouts: int, later: bool = False) -> None:
        self.timeouts, self.later, self.reads = list(timeouts), later, 0

    def accounts(self) -> Array:
        self.reads += 1
        return accounts(debits_pending=self.reads)

    def transfers(self) -> Array:
        if self.later and self.reads > 1:
            self.timeouts.append(self.timeouts[-1] + 5)
        at = NOW - 100
        return transfers(
            *(
                {"flags": PENDING, "timeout": timeout, "timestamp": at + index}
                for index, timeout in enumerate(self.timeouts)
            )
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(NOW)
    monkeypatch.setattr(migrate, "time", made)
    return made


def settle(source: Source) -> tuple[Array, Array, migration.Plan]:
    return migrate.read_settled(cast("migrate.Cluster", source))


@pytest.mark.parametrize("timeouts", [(), (0, 0)], ids=["none", "without a time limit"])
def test_where_no_hold_can_run_out_nothing_is_waited_for(
    clock: Clock, timeouts: tuple[int, ...]
) -> None:
    source = Source(*timeouts)
    _, found, planned = settle(source)
    assert (source.reads, clock.slept) == (1, 0)
    assert (len(found), planned.left_out) == (len(timeouts), 0)


def test_holds_that_end_soon_are_waited_for_in_sight_and_the_ledger_is_read_again(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source(1, 5, 0)
    read, _, planned = settle(source)
    assert clock.slept == pytest.approx(5 + migration.CLOCK_MARGIN_NS / SECOND)
    assert (planned.left_out, len(planned.transfers)) == (2, 1)
    assert set(read["debits_pending"][:, 0]) == {2}  # as it was after the wait
    first, *progress = capsys.readouterr().out.splitlines()
    assert first == "FROM: 2 holds may still run out: waiting until none can"
    assert progress == [f"  FROM: the last one ends in {left} s" for left in (7, 5, 3, 1)]


def test_a_hold_that_ends_later_than_the_bound_is_refused_at_once_with_the_time(
    clock: Clock,
) -> None:
    with pytest.raises(Refusal, match=r"found 2\. .*, or try again in 62 s"):
        settle(Source(1, 60))
    assert clock.slept == 0


def test_holds_that_never_end_to_come_are_refused_within_the_bound(clock: Clock) -> None:
    with pytest.raises(Refusal, match="try again in"):
        settle(Source(1, later=True))
    assert 0 < clock.slept <= migrate.HOLDS_WAIT_S


def test_a_chain_whose_end_ran_out_ends_before_it() -> None:
    linked, held = {"flags": LINKED}, {"flags": PENDING, "timeout": 1}
    planned = plan(accounts(), transfers(linked, linked, held, {}), NOW)
    assert list(planned.transfers["flags"] & LINKED) == [LINKED, 0, 0]


def test_an_account_closed_by_a_transfer_is_created_open() -> None:
    closing = int(tb.TransferFlags.CLOSING_DEBIT) | PENDING
    both = accounts(flags=migration.ACCOUNT_CLOSED)
    both["flags"][1] = 0
    planned = plan(both, transfers({"flags": closing}), NOW)
    assert list(planned.accounts["flags"] & migration.ACCOUNT_CLOSED) == [0, 0]
    without = plan(both, transfers(), NOW)
    assert list(without.accounts["flags"] & migration.ACCOUNT_CLOSED) == [32, 0]


def test_rows_out_of_order_are_refused() -> None:
    with pytest.raises(Refusal, match="in order of timestamp"):
        plan(accounts(), transfers({"timestamp": 7}, {"timestamp": 6}), NOW)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
def test_batches_hold_every_row_once_and_cut_no_chain(linked: list[bool], size: int) -> None:
    rows = transfers(*({"flags": LINKED if is_linked else 0} for is_linked in linked))
    if len(rows):
        rows["flags"][-1] = 0
    try:
        parts = list(batches(rows, size))
    except Refusal:
        longest = max(map(len, "".join("01"[not f] for f in rows["flags"]).split("1"))) + 1
        assert longest > size
        return
    assert sum(map(len, parts)) == len(rows)
    assert all(0 < len(part) <= size and not part["flags"][-1] & LINKED for part in parts)


@pytest.mark.parametrize("field", list(TRANSFER.names or ()))
def test_a_difference_in_any_field_is_found(field: str) -> None:
    expected = transfers({}, {}, {})
    found = expected.copy()
    assert differences(expected, found, "transfers") == []
    found[field][1] = 9
    (said,) = differences(expected, found, "transfers")
    assert said.startswith(f"transfers: {field} differs in 1 rows, first at id 2")


def test_a_missing_row_is_a_difference() -> None:
    assert differences(transfers({}, {}), transfers({}), "t") == ["t: expected 2, found 1"]
