"""The proof that a ledger holds what the cluster acknowledged to a run: pure, on numpy columns.

The claim: every acknowledged transfer is in the ledger once, with the fields that were sent. Of the
run's other transfers, only those whose outcome was unknown may be there, each in full or not at
all. The accounts' balances are the sum of exactly these. Equal debits and credits prove none of it.

The run's record is matched with the ledger by timestamp: an acknowledgement contains the timestamp
that the ledger stores. Both sides are sorted by it, so they are compared in order, page by page.
What follows from ids (see ``stored``) and from balances (see ``books``) is merged in the same way:
memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loadtests.client.columns import words
from loadtests.client.external import Cursor, Sorter, Words
from loadtests.client.records import TRANSFER, Array
from loadtests.proof.books import Books
from loadtests.proof.named import Named, difference, judged
from loadtests.proof.record import BEFORE, KEY, SENT, Record
from loadtests.proof.stored import EXTRA_WIDTH, Stored
from loadtests.run.result import Check, Verdict

_TIMESTAMP = 15  # the column of a transfer's words


class Proof:
    """Compare the ledger page by page, then the accounts, then give all checks."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.count = 0
        self._acknowledged = Cursor(record.by_stamp())
        self._present = Sorter(1, record.folder)
        self._extra = Sorter(EXTRA_WIDTH, record.folder)
        self._wanted = 0
        self._lost, self._differing, self._shared = Named(), Named(), Named()
        # Of a copy, what is newer than all that was seen in it, and need not be there.
        self._open_count, self._open_lost = 0, Named()
        self._stored: Stored | None = None

    def add_page(self, page: Array) -> None:
        """One page of the run's transfers as the ledger holds them, ascending by timestamp."""
        if not len(page):
            return
        found = words(page)
        self._present.add(found[:, :1])
        for block in self._acknowledged.until(found[-1, _TIMESTAMP]):
            at = int(np.searchsorted(found[:, _TIMESTAMP], block[-1, KEY], side="right"))
            self._match(block, found[:at])
            found = found[at:]
        self._note_extra(found)
        self.count += len(page)

    def _match(self, block: Words, found: Words) -> None:
        """Acknowledged lines, and all that the ledger has up to the last one's timestamp."""
        is_first = np.append(True, block[1:, KEY] != block[:-1, KEY])
        # A retry that found its transfer committed has the same timestamp: keep the first line.
        again = np.flatnonzero(~is_first)
        others = again[block[again, SENT] != block[again - 1, SENT]]
        self._shared.transfers(block[others - 1, SENT], self.record.tag)
        lines = block[is_first]
        at = np.searchsorted(lines[:, KEY], found[:, _TIMESTAMP])
        is_known = lines[np.minimum(at, len(lines) - 1), KEY] == found[:, _TIMESTAMP]
        self._compare(lines[at[is_known], SENT : SENT + 16], found[is_known])
        self._note_extra(found[~is_known])
        is_seen = np.zeros(len(lines), bool)
        is_seen[at[is_known]] = True
        self._note_lost(lines, is_seen)

    def _note_lost(self, lines: Words, is_seen: Any) -> None:
        """Which must be there: of a whole ledger all; of a copy those before it was taken.

        A ledger grows at its end alone. So whatever is older than something that a copy has, as
        the cluster has acknowledged it, was there before the copy, too: without any clock.
        """
        newest = int(np.flatnonzero(is_seen)[-1]) if is_seen.any() else -1
        if newest >= 0:  # whatever was open is older
            self._wanted += self._open_count
            self._lost.add(self._open_lost.count, self._open_lost.names)
            self._open_count, self._open_lost = 0, Named()
        is_wanted = (lines[:, BEFORE] != 0) | (np.arange(len(lines)) < newest)
        self._wanted += int(np.count_nonzero(is_wanted))
        self._lost.transfers(lines[is_wanted & ~is_seen, SENT], self.record.tag)
        self._open_count += int(np.count_nonzero(~is_wanted))
        self._open_lost.transfers(lines[~is_wanted & ~is_seen, SENT], self.record.tag)

    def _compare(self, sent: Words, found: Words) -> None:
        expected = sent.copy()
        expected[:, _TIMESTAMP] = found[:, _TIMESTAMP]
        differs = np.flatnonzero((expected != found).any(axis=1))
        self._differing.add(len(differs), (difference(expected[n], found[n]) for n in differs))

    def _note_extra(self, found: Words) -> None:
        """What the ledger holds at a timestamp that was not acknowledged."""
        rows = np.empty((len(found), EXTRA_WIDTH), np.uint64)
        rows[:, 0], rows[:, 1], rows[:, 2:] = found[:, 0], found[:, _TIMESTAMP], found
        self._extra.add(rows)

    def stored(self, show: Callable[[int], None] = lambda _count: None) -> Stored:
        """What of the record is in the ledger, once all pages have been seen.

        ``show`` is told how many lines have been looked up.
        """
        if self._stored is None:
            for block in self._acknowledged.until(None):
                self._match(block, np.empty((0, TRANSFER.itemsize // 8), np.uint64))
            self._stored = Stored(self.record, self._present, self._extra, show)
        return self._stored

    def last_expiry_ns(self) -> int:
        """When the last unsettled hold times out, on the cluster's clock; 0 if there is none."""
        return self.stored().last_expiry_ns

    def finish(self, accounts: Array, asked: Array) -> list[Check]:
        """All checks. ``accounts`` as found in the ledger, ``asked`` as the run created them."""
        books = Books(self.record.folder)
        books.add(accounts, asked)
        return self.checks(books)

    def checks(self, books: Books) -> list[Check]:
        """All checks, with all accounts of the run in the books."""
        stored = self.stored()
        self.resolved = stored.resolved
        acknowledged = [
            self._lost.text("acknowledged, but not in the ledger: transfer"),
            self._differing.told("stored with other fields"),
        ]
        good = f"{self._wanted:,} acknowledged transfers are in the ledger, fields equal"
        return [
            judged("acknowledged", acknowledged, good),
            stored.check_once(self._shared),
            stored.check_unknown(),
            stored.check_nothing_else(),
            stored.check_chains(),
            stored.check_holds(books.check_pending()),
            books.check_balances(stored.postings),
            books.check_conservation(),
            books.check_no_overdraft(),
        ]


def verdict_of(checks: list[Check]) -> Verdict:
    """Failed if anything is; else unknown if anything could not be read; else passed."""
    verdicts = {check.verdict for check in checks}
    if "failed" in verdicts:
        return "failed"
    return "unknown" if "unknown" in verdicts or not checks else "passed"
