"""Indexes that only reads need: built from the ledger, in steps, when they are first asked for.

They tell which transfers and expiries touch an account, and an account's balances just after each.
Both follow from what is committed, so they are brought up to date on demand: a ledger that is only
written to never pays for them. Of the balances only every `MARK_EVERY`-th is kept, and only of
accounts that were asked for: those between are computed again.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from ..protocol import account_flags, transfer_flags
from ..protocol.records import RECORD_SIZE, Account, Balances, TransferRow
from .steps import WALKED, Steps

if TYPE_CHECKING:
    from .ledger import Ledger

MARK_EVERY = 32
Mark = tuple[int, int, Balances]
_SIDES = struct.Struct("<16x16s16s80x")
_NEVER = 1 << 62


class Moment(NamedTuple):
    """A moment of the ledger: how many transfers and how many expiries lie before it."""

    rows: int
    expiries: int


_EVER = Moment(_NEVER, _NEVER)


class Timeline:
    """What touched one account: rows, positions in `Ledger.expired`, and marks.

    A mark says how many of the rows and of the expiries were in, and what the balances were then.
    """

    __slots__ = ("expiries", "marks", "rows")

    def __init__(self) -> None:
        self.rows, self.expiries = array("I"), array("I")
        self.marks: list[Mark] = []


_EMPTY = Timeline()


class History:
    """The timelines of all accounts."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._of: defaultdict[bytes, Timeline] = defaultdict(Timeline)
        self._done = Moment(0, 0)

    def catch_up(self) -> Steps[None]:
        """Enter what has happened since the last time."""
        while self._enter():
            yield

    def rows_of(self, account_id: bytes) -> array[int]:
        """Rows of the transfers on either side of an account, in order."""
        return self._of.get(account_id, _EMPTY).rows

    def mark(self, account: Account) -> Steps[int]:
        """Prepare an account for `cursor`; returns how many of its events the last step walked."""
        while (walked := self._mark(account)) == WALKED:
            yield
        return walked

    def cursor(self, account: Account) -> Cursor:
        """The balances of an account through time; quick once `mark` has prepared it."""
        return Cursor(self._ledger, account, self._of.get(account.id, _EMPTY))

    def _enter(self) -> bool:
        """Enter some of what has happened; returns whether there may be more."""
        ledger, of = self._ledger, self._of
        start, first = self._done
        end = min(start + WALKED, len(ledger.timestamps))
        records = bytes(ledger.records[start * RECORD_SIZE : end * RECORD_SIZE])
        for row, (debit, credit) in enumerate(_SIDES.iter_unpack(records), start):
            of[debit].rows.append(row)
            of[credit].rows.append(row)
        last = min(first + WALKED, len(ledger.expired))
        for position in range(first, last):
            event = ledger.transfer(ledger.expired[position][2])
            of[event[1]].expiries.append(position)
            of[event[2]].expiries.append(position)
        self._done = Moment(end, last)
        return self._done != (len(ledger.timestamps), len(ledger.expired))

    def _mark(self, account: Account) -> int:
        """Mark some more of an account's balances; returns how many events it walked for that."""
        marks, cursor = self._of[account.id].marks, self.cursor(account)
        if marks:
            cursor.jump(marks[-1])
        for walked in range(WALKED):
            if not cursor.step(_EVER):
                return walked
            if walked % MARK_EVERY == MARK_EVERY - 1:
                marks.append(cursor.mark())
        return WALKED


class Cursor:
    """One account's balances, from one of its events to the next."""

    def __init__(self, ledger: Ledger, account: Account, timeline: Timeline) -> None:
        self._ledger, self._id, self._timeline = ledger, account.id, timeline
        self._rows = self._expiries = 0  # how many are in
        self._balances: Balances = (0, 0, 0, 0, account.flags_created)
        self._start = self.mark()

    def at(self, moment: Moment) -> Balances:
        """The balances at a moment; cheapest if it is soon after the last one asked for."""
        timeline = self._timeline
        ahead = bisect_left(timeline.rows, moment.rows, self._rows) - self._rows
        if ahead > MARK_EVERY or _beyond(timeline, self.mark(), moment):
            marks = timeline.marks
            after = bisect_right(marks, False, key=lambda mark: _beyond(timeline, mark, moment))
            self.jump(marks[after - 1] if after else self._start)
        while self.step(moment):
            pass
        return self._balances

    def mark(self) -> Mark:
        """Where it is."""
        return self._rows, self._expiries, self._balances

    def jump(self, mark: Mark) -> None:
        """Go where `mark` says."""
        self._rows, self._expiries, self._balances = mark

    def step(self, moment: Moment) -> bool:
        """Take the account's next event in, unless it lies behind `moment`; returns whether."""
        rows, expiries, ledger = self._timeline.rows, self._timeline.expiries, self._ledger
        row = rows[self._rows] if self._rows < len(rows) else _NEVER
        if self._expiries < len(expiries) and expiries[self._expiries] < moment.expiries:
            before, _, held = ledger.expired[expiries[self._expiries]]
            if before <= row:
                self._expiries += 1
                self._release(ledger.transfer(held))
                return True
        if row >= moment.rows:
            return False
        self._rows += 1
        self._follow(ledger.transfer(row))
        return True

    def _follow(self, event: TransferRow) -> None:
        amount, flags = event[3] | event[4] << 64, event[12]
        if flags & transfer_flags.RESOLVING:
            held = self._ledger.transfer(self._ledger.transfers[event[5]])
            if flags & transfer_flags.VOID:
                self._release(held)
            else:
                self._move(event, -(held[3] | held[4] << 64), amount)
        elif flags & transfer_flags.PENDING:
            self._move(event, amount, 0, closed=True)
        else:
            self._move(event, 0, amount)

    def _release(self, held: TransferRow) -> None:
        self._move(held, -(held[3] | held[4] << 64), 0, closed=False)

    def _move(
        self, event: TransferRow, pending: int, posted: int, closed: bool | None = None
    ) -> None:
        """Add to the balances; close or reopen the account if the event says so."""
        dpe, dpo, cpe, cpo, flags = self._balances
        if event[1] == self._id:
            dpe, dpo, closes = dpe + pending, dpo + posted, transfer_flags.CLOSING_DEBIT
        else:
            cpe, cpo, closes = cpe + pending, cpo + posted, transfer_flags.CLOSING_CREDIT
        if closed is not None and event[12] & closes:
            flags = flags | account_flags.CLOSED if closed else flags & ~account_flags.CLOSED
        self._balances = (dpe, dpo, cpe, cpo, flags)


def _beyond(timeline: Timeline, mark: Mark, moment: Moment) -> bool:
    """Whether something is in at `mark` that only happens after `moment`."""
    rows, expiries, _ = mark
    return bool(
        (rows and timeline.rows[rows - 1] >= moment.rows)
        or (expiries and timeline.expiries[expiries - 1] >= moment.expiries)
    )


def after_transfer(ledger: Ledger, row: int) -> Moment:
    """The moment just after the transfer in `row`."""
    return Moment(row + 1, bisect_right(ledger.expired, row, key=itemgetter(0)))


def after_expiry(ledger: Ledger, position: int) -> Moment:
    """The moment just after the expiry at this position of `Ledger.expired`."""
    return Moment(ledger.expired[position][0], position + 1)
