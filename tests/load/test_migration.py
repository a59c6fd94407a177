"""A ledger moved into a new cluster: the plan, row by row and page by page."""

from __future__ import annotations

import numpy as np
import pytest
import tigerbeetle as tb
from hypothesis import given
from hypothesis import strategies as st

from cluster.operate.migrate import plan
from cluster.operate.migrate.plan import Unended, batches, differences
from cluster.refusal import Refusal
from loadtests.client.external import Cursor
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


def planned(old: Array, moved: Array, now_ns: int = NOW) -> tuple[Array, Array, int]:
    """Accounts and transfers as they are sent, and how many holds are left out: in small pages."""
    holds, closed = Unended(), Unended()
    plan.note_closed(old, closed)
    for start in range(0, len(moved), 2):
        plan.note_holds(moved[start : start + 2], holds)
        plan.note_closing(moved[start : start + 2], closed)
    (ran_out, _), kept = holds.left(), Cursor(closed.left()[0].sorted())
    assert not plan.alive(ran_out, now_ns).count
    cursor, sent, left_out = Cursor(ran_out.sorted()), [np.empty(0, TRANSFER)], 0
    for rows in plan.whole_chains(moved[at : at + 2] for at in range(0, len(moved), 2)):
        out = plan.among_stamps(rows, cursor)
        sent.append(plan.imported(rows, out))
        left_out += int(out.sum())
    created = plan.importable(old, plan.among_stamps(old, kept))
    return created, np.concatenate(sent), left_out


def test_accounts_are_created_without_balances_and_transfers_as_they_were() -> None:
    old = accounts(debits_posted=5, flags=2)
    created, sent, _ = planned(old, transfers({}, {}))
    assert created["debits_posted"].sum() == 0
    assert set(created["flags"]) == {2 | plan.ACCOUNT_IMPORTED}
    assert list(sent["timestamp"]) == [100 * SECOND, 101 * SECOND]
    assert set(sent["flags"]) == {IMPORTED}
    assert old["debits_posted"].any()  # the source's own rows are what the proof compares with


def test_a_hold_that_was_posted_keeps_its_place_without_its_time_limit() -> None:
    held = {"flags": PENDING, "timeout": 60}
    _, sent, left_out = planned(accounts(), transfers(held, {}, {"flags": POST, "pending_id": 1}))
    assert left_out == 0
    assert list(sent["timeout"]) == [0, 0, 0]


def test_a_hold_that_ran_out_is_left_out_and_counted() -> None:
    _, sent, left_out = planned(accounts(), transfers({}, {"flags": PENDING, "timeout": 60}, {}))
    assert left_out == 1
    assert list(sent["id"][:, 0]) == [1, 3]


def test_a_hold_without_a_time_limit_goes_on() -> None:
    _, sent, left_out = planned(accounts(), transfers({"flags": PENDING}))
    assert (left_out, len(sent)) == (0, 1)


def alive(*rows: dict[str, int], now_ns: int) -> plan.Alive:
    holds = Unended()
    plan.note_holds(transfers(*rows), holds)
    return plan.alive(holds.left()[0], now_ns)


def test_holds_that_may_still_run_out_are_told_with_the_first_and_the_last_end() -> None:
    long, short = {"flags": PENDING, "timeout": 100}, {"flags": PENDING, "timeout": 10}
    found = alive({}, short, long, short, {"flags": PENDING}, now_ns=112 * SECOND)
    assert found == plan.Alive(3, 101 * SECOND, 202 * SECOND + plan.CLOCK_MARGIN_NS)
    assert "found 3. Fix: post or void them, or try again in 92 s" in str(
        found.refusal(112 * SECOND)
    )
    later = alive({}, short, long, short, now_ns=114 * SECOND)
    assert (later.count, later.first) == (2, 102 * SECOND)
    assert alive({}, short, long, now_ns=NOW).count == 0


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=50),
    st.integers(0, 30),
)
def test_what_has_no_end_is_found_by_both_halves_of_its_id_and_told_once_more_is_known(
    rows: list[tuple[int, int, bool]], after: int
) -> None:
    """Also where many ids share one half, and where there is no memory for them."""
    ids = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    stamps = np.arange(1, len(rows) + 1, dtype=np.uint64)
    is_end = np.array([row[2] for row in rows], bool)
    made, middle = Unended(), len(rows) // 6 * 3

    def add(start: int, stop: int) -> None:
        made._rows._rows_max = 2
        for first in range(start, stop, 3):
            part = slice(first, min(stop, first + 3))
            ends = is_end[part]
            made.begin(ids[part][~ends], stamps[part][~ends], stamps[part][~ends] * np.uint64(2))
            made.end(ids[part][ends])

    def check(stop: int) -> Unended:
        found, rest = made.left(after)
        left = [tuple(row) for block in found.sorted() for row in block.tolist()]
        ended = {row[:2] for row in rows[:stop] if row[2]}
        expected = [
            n + 1 for n, row in enumerate(rows[:stop]) if not row[2] and row[:2] not in ended
        ]
        assert left == [(stamp, 2 * stamp) for stamp in expected if stamp > after]
        return rest

    add(0, middle)
    rest = check(middle)
    made = rest  # what was begun and not ended is all that is kept
    add(middle, len(rows))
    # An end before its begin is of no ledger; here it was forgotten with the first half.
    if not any(row[2] and row[:2] in {r[:2] for r in rows[middle:] if not r[2]} for row in rows):
        check(len(rows))


def test_a_chain_whose_end_ran_out_ends_before_it() -> None:
    linked, held = {"flags": LINKED}, {"flags": PENDING, "timeout": 1}
    _, sent, _ = planned(accounts(), transfers(linked, linked, held, {}))
    assert list(sent["flags"] & LINKED) == [LINKED, 0, 0]


def test_an_account_closed_by_a_transfer_is_created_open() -> None:
    closing = int(tb.TransferFlags.CLOSING_DEBIT) | PENDING
    both = accounts(flags=plan.ACCOUNT_CLOSED)
    both["flags"][1] = 0
    assert list(planned(both, transfers({"flags": closing}))[0]["flags"] & 32) == [0, 0]
    assert list(planned(both, transfers({}))[0]["flags"] & 32) == [32, 0]


def test_rows_out_of_order_are_refused() -> None:
    pages = np.split(transfers({"timestamp": 7}, {"timestamp": 6}), [2])
    with pytest.raises(Refusal, match="in order of timestamp"):
        list(plan.whole_chains(pages))


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
def test_parts_of_pages_cut_no_chain_and_hold_back_one_that_is_not_whole(
    linked: list[bool], size: int
) -> None:
    rows = transfers(*({"flags": LINKED if is_linked else 0} for is_linked in linked))
    parts = list(plan.whole_chains(rows[at : at + size] for at in range(0, len(rows), size)))
    assert all(not part["flags"][-1] & LINKED for part in parts)
    whole = sum(map(len, parts))
    assert [row for part in parts for row in part["id"][:, 0]] == list(rows["id"][:whole, 0])
    assert (rows["flags"][whole:] & LINKED).all()


def test_a_chain_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    rows = transfers(*({"flags": LINKED} for _ in range(9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BATCH_MAX", 5)
        with pytest.raises(Refusal, match="expected chains of at most 5, found a longer one"):
            list(plan.whole_chains(rows[at : at + 3] for at in range(0, 9, 3)))


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
    assert differences(transfers({}, {}), transfers({}), "t") == [
        f"t: expected 2, found 1, from timestamp {100 * SECOND} on"
    ]
