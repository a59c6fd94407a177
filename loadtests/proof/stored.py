"""What of a run's record the ledger holds, by the ids: one merge of both, in order of the ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loadtests.client.columns import Lows, among, limbs_of, repeated
from loadtests.client.external import Cursor, Sorter, Words
from loadtests.client.records import CREATED, PENDING, POST, UNANSWERED, VOID
from loadtests.proof.named import Named, difference, judged
from loadtests.proof.record import BEFORE, KEY, SENT, STAMP, Record, status_of
from loadtests.run.result import Check

#: A transfer that the ledger holds at another timestamp than any acknowledged: id, then all words.
EXTRA_WIDTH = 2 + 16
_SECOND = np.uint64(10**9)
_TIMESTAMP = 15
_LOW_HALF, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
#: Sums of accounts are combined in memory while they fit into this.
_POSTINGS_BYTES = 24 << 20
DEBIT, CREDIT = 0, 1


class _Kinds(NamedTuple):
    """What the ledger holds besides what was acknowledged."""

    differing: Named
    refused: Named
    unsent: Named
    foreign: Named


class Stored:
    """The record joined with what is present, when it is made; then the checks."""

    def __init__(
        self, record: Record, present: Sorter, extra: Sorter, show: Callable[[int], None]
    ) -> None:
        self._tag = record.tag
        self._created_twice, self._stored_twice = Named(), Named()
        self._extra = _Kinds(Named(), Named(), Named(), Named())
        self._unanswered = self._committed = self._hold_count = 0
        self._chains = Sorter(3, record.folder)
        self._holds = Sorter(3, record.folder)
        self.postings = Sorter(6, record.folder, combine=summed, run_bytes=_POSTINGS_BYTES)
        present_ids, extra_rows = Cursor(present.sorted()), Cursor(extra.sorted())
        count = 0
        for rows in record.by_id():
            self._add(rows, self._is_present(rows, present_ids), extra_rows)
            show(count := count + len(rows))
        self._is_present(None, present_ids)
        for rest in extra_rows.until(None):
            self._other(rest, np.zeros(len(rest), bool))
        self._settle()

    @property
    def resolved(self) -> dict[str, int]:
        """Of the transfers without an answer, how many are in the ledger."""
        return {"committed": self._committed, "absent": self._unanswered - self._committed}

    def check_once(self, shared: Named) -> Check:
        """No id twice; ``shared`` are those acknowledged at another one's timestamp."""
        problems = [
            self._created_twice.text("acknowledged as created twice: transfer"),
            self._stored_twice.text("stored twice: transfer"),
            shared.text("acknowledged with another transfer's timestamp: transfer"),
        ]
        return judged("once", problems, "every id was created once, at its own timestamp")

    def check_unknown(self) -> Check:
        """What had no answer is there as it was sent, or not at all."""
        sent, held = self._unanswered, self._committed
        good = f"{sent:,} unanswered: {held:,} committed, {sent - held:,} absent"
        problem = self._extra.differing.told("stored with other fields")
        return judged("unknown resolved", [problem], good)

    def check_nothing_else(self) -> Check:
        """The ledger has nothing of the run that was refused or never sent."""
        _, refused, unsent, foreign = self._extra
        problems = [
            refused.text("stored, though refused or at another timestamp: transfer"),
            unsent.text("stored, but not in the record: transfer"),
            foreign.text("stored with this run's tag, but with a foreign id: transfer"),
        ]
        return judged("nothing else", problems, "the ledger holds nothing else of this run")

    def check_chains(self) -> Check:
        """Linked chains are whole or absent."""
        count, missing = 0, Named()
        for rows in self._chains.sorted():
            begins = np.flatnonzero(np.append(True, rows[1:, 0] != rows[:-1, 0]))
            held = np.add.reduceat(rows[:, 2], begins)
            total = np.diff(np.append(begins, len(rows))).astype(np.uint64)
            is_torn = np.repeat((held > 0) & (held < total), total.astype(np.intp))
            missing.transfers(rows[is_torn & (rows[:, 2] == 0), 1], self._tag)
            count += len(begins)
        problem = missing.text("missing from a chain whose other legs are stored: transfer")
        return judged("chains whole", [problem], f"{count:,} linked chains: whole or absent")

    def check_holds(self, pending: str) -> Check:
        """Every hold has ended, once; ``pending`` is what the accounts still hold."""
        problems = [self._settled_twice.text("settled twice: transfer"), pending]
        holds, settled = self._hold_count, self._settled
        good = f"{holds:,} holds: {settled:,} captured or voided, {holds - settled:,} timed out"
        return judged("holds settled", problems, good)

    def _is_present(self, rows: Words | None, present: Cursor) -> npt.NDArray[np.bool_]:
        """Which lines the ledger has; ids up to the last one's are passed, all of them for None."""
        keys = np.empty(0, np.uint64) if rows is None else np.ascontiguousarray(rows[:, KEY])
        found = np.zeros(len(keys), bool)
        for block in present.until(None if rows is None else keys[-1]):
            ids = np.ascontiguousarray(block[:, 0])
            self._stored_twice.transfers(repeated(ids), self._tag)
            found |= among(keys, ids)
        return found

    def _add(self, rows: Words, is_present: npt.NDArray[np.bool_], extra: Cursor) -> None:
        """Lines in order of id, no id in two calls."""
        keys = np.ascontiguousarray(rows[:, KEY])
        status = status_of(rows)
        self._created_twice.transfers(repeated(keys[status == CREATED]), self._tag)
        is_unanswered = (status == UNANSWERED) | (rows[:, BEFORE] == 0)
        self._unanswered += len(unanswered := np.unique(keys[is_unanswered]))
        self._committed += len(np.unique(keys[is_unanswered & is_present]))
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        for others in extra.until(keys[-1]):
            is_committed = among(others[:, 0], unanswered)
            committed = others[is_committed, 2:]
            at = first[np.searchsorted(keys[first], committed[:, 0])]
            self._compare(rows[at, SENT : SENT + 16], committed)
            rest = others[~is_committed]
            self._other(rest, among(rest[:, 0], keys))
        self._note_chains(rows, is_present)
        self._note_holds(rows)
        self._note_stored(rows[first][is_present[first]])

    def _compare(self, sent: Words, found: Words) -> None:
        expected = sent.copy()
        expected[:, _TIMESTAMP] = found[:, _TIMESTAMP]
        differs = np.flatnonzero((expected != found).any(axis=1))
        names = (difference(expected[row], found[row]) for row in differs)
        self._extra.differing.add(len(differs), names)

    def _other(self, rows: Words, was_sent: npt.NDArray[np.bool_]) -> None:
        """What the ledger has of the run, though no answer and no silence allows it."""
        lows, is_foreign = rows[:, 0], rows[:, 3] != np.uint64(self._tag)
        self._extra.refused.transfers(lows[was_sent & ~is_foreign], self._tag)
        self._extra.unsent.transfers(lows[~was_sent & ~is_foreign], self._tag)
        self._extra.foreign.transfers(lows[is_foreign], self._tag)

    def _note_chains(self, rows: Words, is_present: npt.NDArray[np.bool_]) -> None:
        legs = np.flatnonzero((rows[:, SENT + 10] | rows[:, SENT + 11]) != 0)
        keys = rows[legs, KEY]
        legs = legs[np.append(True, keys[1:] != keys[:-1])] if len(legs) else legs
        held = is_present[legs].astype(np.uint64)
        self._chains.add(np.stack([rows[legs, SENT + 10], rows[legs, KEY], held], axis=1))

    def _note_holds(self, rows: Words) -> None:
        """When each hold ends by itself, whether or not it is stored."""
        holds = rows[(_flags(rows) & np.uint64(PENDING)) != 0]
        expiry = holds[:, STAMP] + (holds[:, SENT + 13] >> _HALF) * _SECOND
        self._holds.add(np.stack([holds[:, KEY], np.zeros_like(expiry), expiry], axis=1))

    def _note_stored(self, rows: Words) -> None:
        """Lines that the ledger has, each id once: what ends a hold, and what moves money."""
        flags = _flags(rows)
        self._hold_count += int(np.count_nonzero(flags & np.uint64(PENDING)))
        ended = rows[(flags & np.uint64(POST | VOID)) != 0, SENT + 8]
        one = np.ones_like(ended)
        self._holds.add(np.stack([ended, one, one], axis=1))
        posted = rows[(flags & np.uint64(PENDING | VOID)) == 0]
        amounts = limbs_of(posted[:, SENT + 6 : SENT + 8])
        for side, column in ((DEBIT, SENT + 2), (CREDIT, SENT + 4)):
            moved = np.empty((len(posted), 6), np.uint64)
            moved[:, 0], moved[:, 1], moved[:, 2:] = posted[:, column], side, amounts
            self.postings.add(moved)

    def _settle(self) -> None:
        """Holds with what ended them: how many did, which did twice, when the last one will."""
        self._settled, self._settled_twice, self.last_expiry_ns = 0, Named(), 0
        for rows in self._holds.sorted():
            ids = np.ascontiguousarray(rows[:, 0])
            is_end = rows[:, 1] == 1
            ended: Lows = ids[is_end]
            self._settled += len(np.unique(ended))
            self._settled_twice.transfers(repeated(ended), self._tag)
            left = rows[~is_end & ~among(ids, ended), 2]
            self.last_expiry_ns = max(self.last_expiry_ns, int(left.max(initial=0)))


def summed(rows: Words) -> Words:
    """Sorted postings (account, side, four limbs) with one row for each account and side."""
    if not len(rows):
        return rows
    changes = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    begins = np.flatnonzero(np.append(True, changes))
    return np.hstack([rows[begins, :2], np.add.reduceat(rows[:, 2:], begins, axis=0)])


def _flags(rows: Words) -> Words:
    return rows[:, SENT + 14] >> np.uint64(48)
