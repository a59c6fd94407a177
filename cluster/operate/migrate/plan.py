"""How a whole ledger is moved into a new cluster, row by row. Pure; columns, not objects.

A cluster's size is fixed when it is formatted. For six replicas instead of three, a new cluster
imports the old one's history with TigerBeetle's ``imported`` flag: accounts, then transfers, in the
order of their timestamps, each with its own id and timestamp. The same transfers give the same
balances. Two things cannot be imported as they were:

- a time limit (``timeout``): imported holds have none. A hold that was posted or voided keeps its
  end, which is a transfer of its own. One that timed out moved nothing: it is left out and counted.
  What comes after one that may still time out has to wait, until it is known which of them it is.
- ``closed``: an account is closed again by the transfer that closed it, if one did.

Both ask whether something later has the same id. ``Unended`` answers that for any number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tigerbeetle as tb

from cluster.refusal import Refusal
from loadtests.client.columns import Lows, among
from loadtests.client.external import Cursor, Sorter
from loadtests.client.records import BATCH_MAX, LINKED, PENDING, POST, VOID, Array

ACCOUNT_IMPORTED = int(tb.AccountFlags.IMPORTED)
ACCOUNT_CLOSED = int(tb.AccountFlags.CLOSED)
TRANSFER_IMPORTED = int(tb.TransferFlags.IMPORTED)
_CLOSING = int(tb.TransferFlags.CLOSING_DEBIT | tb.TransferFlags.CLOSING_CREDIT)
_BALANCES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
SECOND = 10**9
#: A hold ends within a second of its time, by the cluster's clock; ours may differ a little. One
#: that had not ended after all would show in the balances.
CLOCK_MARGIN_NS = 2 * SECOND
_ODD = np.uint64(0x9E3779B97F4A7C15)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alive:
    """Holds that may still run out: how many, the timestamp of the first, when the last one has."""

    count: int = 0
    first: int = 0
    ends_ns: int = 0

    def refusal(self, now_ns: int) -> Refusal:
        """Why they cannot be imported, of a ledger that nobody writes to any more."""
        left_s = -(-(self.ends_ns - now_ns) // SECOND)  # rounded up
        return Refusal(
            "holds: expected none that may still run out, since imported ones have no time limit, "
            f"found {self.count:,}. Fix: post or void them, or try again in {left_s:,} s"
        )


class Unended:
    """What begins, and has an end later on: both with an id, in any order, and in any number."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._rows = folder, Sorter(6, folder)

    def begin(self, ids: Array, stamps: Lows, more: Lows) -> None:
        """What begins, with its timestamp and another number that comes back with it."""
        self._add(ids, 0, stamps, more)

    def end(self, ids: Array) -> None:
        """What ends."""
        nothing = np.zeros(len(ids), np.uint64)
        self._add(ids, 1, nothing, nothing)

    def left(self, after: int = 0) -> tuple[Sorter, Unended]:
        """Timestamp and number of what has no end and is newer than ``after``, by timestamp.

        The second is the same, to be gone on with when more is known: it is much smaller.
        """
        found, rest = Sorter(2, self._folder), Unended(self._folder)
        for rows in self._rows.sorted():
            is_end = rows[:, 3] == 1
            ids = np.ascontiguousarray(rows[:, 1:3]).view("S16").ravel()
            is_left = ~is_end & ~np.isin(ids, ids[is_end]) & (rows[:, 4] > np.uint64(after))
            found.add(rows[is_left, 4:])
            rest._rows.add(rows[is_left])
        return found, rest

    def _add(self, ids: Array, is_end: int, stamps: Lows, more: Lows) -> None:
        rows = np.empty((len(ids), 6), np.uint64)
        rows[:, 0] = ids[:, 0] ^ ids[:, 1] * _ODD  # one key for 128 bits; few ids share one
        rows[:, 1:3], rows[:, 3], rows[:, 4], rows[:, 5] = ids, is_end, stamps, more
        self._rows.add(rows)


def note_holds(transfers: Array, holds: Unended) -> None:
    """Holds with a time limit and when they will have run out; and what posted or voided one."""
    flags = transfers["flags"]
    limited = transfers[((flags & PENDING) != 0) & (transfers["timeout"] != 0)]
    limits = limited["timeout"].astype("<u8") * np.uint64(SECOND)
    ends_ns = limited["timestamp"] + limits + np.uint64(CLOCK_MARGIN_NS)
    holds.begin(limited["id"], limited["timestamp"], ends_ns)
    holds.end(transfers["pending_id"][(flags & (POST | VOID)) != 0])


def note_closed(accounts: Array, closed: Unended) -> None:
    """Accounts that are closed."""
    are = accounts[(accounts["flags"] & ACCOUNT_CLOSED) != 0]
    closed.begin(are["id"], are["timestamp"], are["timestamp"])


def note_closing(transfers: Array, closed: Unended) -> None:
    """Those of a transfer that closed one: it will be closed again by that."""
    closing = transfers[(transfers["flags"] & _CLOSING) != 0]
    closed.end(closing["debit_account_id"])
    closed.end(closing["credit_account_id"])


def alive(open_holds: Sorter, now_ns: int) -> Alive:
    """Of the holds that nothing has ended, those that have not run out now."""
    count, first, ends_ns = 0, 0, 0
    for rows in open_holds.sorted():
        left = rows[rows[:, 1] > np.uint64(now_ns)]
        if len(left):
            first = first or int(left[0, 0])
            count, ends_ns = count + len(left), max(ends_ns, int(left[:, 1].max()))
    return Alive(count, first, ends_ns)


def among_stamps(rows: Array, stamps: Cursor) -> Mask:
    """Which rows, in order of timestamp, have one of these. The cursor moves to the last row."""
    found = np.zeros(len(rows), bool)
    for block in stamps.until(rows["timestamp"][-1]):
        found |= among(rows["timestamp"], np.ascontiguousarray(block[:, 0]))
    return found


def importable(accounts: Array, was_created_closed: Mask) -> Array:
    """The accounts as they were created: no balances; open if a transfer closed them."""
    created = as_imported(accounts)
    for field in _BALANCES:
        created[field] = 0
    created["flags"][~was_created_closed] &= 0xFFFF ^ ACCOUNT_CLOSED
    return created


def as_imported(accounts: Array) -> Array:
    """The old cluster's accounts as the new one must show them: equal, but marked as imported."""
    shown = accounts.copy()
    shown["flags"] |= ACCOUNT_IMPORTED
    return shown


def whole_chains(pages: Iterable[Array]) -> Iterator[Array]:
    """The same transfers, in parts that cut no chain; one that is not whole is held back.

    Raises Refusal for rows that are not in order of timestamp, and for a chain that never ends.
    """
    rest: Array | None = None
    for page in pages:
        rows = page if rest is None else np.concatenate([rest, page])
        check_order("transfers", rows)
        ends = np.flatnonzero((rows["flags"] & LINKED) == 0)
        at = int(ends[-1]) + 1 if len(ends) else 0
        if at:
            yield rows[:at]
        rest = rows[at:]
        if len(rest) > BATCH_MAX:
            raise _endless(int(rest["timestamp"][0]), BATCH_MAX)


def imported(transfers: Array, left_out: Mask) -> Array:
    """Transfers, with no chain cut, as they are sent to the new cluster and must be there."""
    sent = transfers.copy()
    sent["timeout"] = 0
    sent["flags"] |= TRANSFER_IMPORTED
    _mend_chains(sent, left_out)
    return sent[~left_out]


def batches(transfers: Array, size: int = BATCH_MAX) -> Iterator[Array]:
    """Parts of at most ``size`` that keep chains whole. Raises Refusal for a longer chain."""
    ends = np.flatnonzero((transfers["flags"] & LINKED) == 0) + 1
    start = 0
    while start < len(transfers):
        at = int(np.searchsorted(ends, start + size, side="right")) - 1
        end = int(ends[at]) if at >= 0 else 0
        if end <= start:
            raise _endless(int(transfers["timestamp"][start]), size)
        yield transfers[start:end]
        start = end


def differences(expected: Array, found: Array, kind: str) -> list[str]:
    """How what the new cluster holds differs from what it must hold; empty when equal."""
    if len(expected) != len(found):
        return [f"{kind}: expected {len(expected):,}, found {len(found):,}{_since(expected)}"]
    return [
        f"{kind}: {field} differs in {int(unequal.sum()):,} rows, first at id "
        f"{int(expected['id'][row][0]) | int(expected['id'][row][1]) << 64}"
        for field in expected.dtype.names or ()
        if (unequal := _unequal(expected[field], found[field])).any()
        for row in [int(np.argmax(unequal))]
    ]


def check_order(kind: str, rows: Array) -> None:
    """Raises Refusal for rows that are not in order of timestamp."""
    moments = rows["timestamp"]
    if (moments[1:] <= moments[:-1]).any():
        wanted, fix = (
            "them in order of timestamp",
            "make migrate again, and look at the old cluster",
        )
        raise Refusal(kind, expected=wanted, found="another order", fix=fix)


def _mend_chains(sent: Array, left_out: Mask) -> None:
    """A chain whose last transfer is left out ends with the one before it."""
    linked = (sent["flags"] & LINKED) != 0
    for row in np.flatnonzero(left_out & ~linked):
        before = row - 1
        while before >= 0 and linked[before]:
            if not left_out[before]:
                sent["flags"][before] &= 0xFFFF ^ LINKED
                break
            before -= 1


def _unequal(a: Array, b: Array) -> Mask:
    differing: Mask = a != b
    if differing.ndim > 1:  # halves of 128 bits
        differing = np.asarray(differing.any(axis=1))
    return differing


def _since(rows: Array) -> str:
    return f", from timestamp {int(rows['timestamp'][0])} on" if len(rows) else ""


def _endless(stamp: int, size: int) -> Refusal:
    return Refusal(
        "transfers",
        expected=f"chains of at most {size}",
        found=f"a longer one at timestamp {stamp}",
        fix="make migrate again: TigerBeetle takes none, so the reading was cut",
    )
