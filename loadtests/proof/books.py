"""The accounts of a run, as they were asked for and as they are found: what their balances say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loadtests.client.columns import LIMBS, carried, limbs_of, value_of, words
from loadtests.client.external import Sorter, Words, merge
from loadtests.client.records import Array, overdrawn
from loadtests.proof.named import Named, judged
from loadtests.proof.stored import CREDIT, DEBIT
from loadtests.run.result import Check

_SIDES = {DEBIT: "debits_posted", CREDIT: "credits_posted"}
#: Rows of one account, in this order behind its postings: asked for, and found with its words.
_ASKED, _FOUND = 2, 3
_WIDTH = 2 + 16
_POSTED = {DEBIT: 2 + 4, CREDIT: 2 + 8}  # the columns of a found account's balances


class Books:
    """All accounts of a run, added in any order and in as many pieces as they come."""

    def __init__(self, folder: Path | None = None) -> None:
        self.count = 0
        self._rows = Sorter(_WIDTH, folder)
        self._sums: dict[tuple[int, str], list[int]] = {}
        self._pending, self._overdrawn = Named(), Named()

    @property
    def pending(self) -> int:
        """Accounts that hold pending amounts."""
        return self._pending.count

    def add(self, found: Array, asked: Array) -> None:
        """Accounts as the ledger has them, and as the run created them."""
        self.count += len(found)
        for kind, accounts in ((_ASKED, asked), (_FOUND, found)):
            rows = np.empty((len(accounts), _WIDTH), np.uint64)
            rows[:, 2:] = words(accounts)
            rows[:, 0], rows[:, 1] = rows[:, 2], kind
            self._rows.add(rows)
        held = (found["debits_pending"] != 0) | (found["credits_pending"] != 0)
        self._pending.accounts(found[held.any(axis=1)])
        self._overdrawn.accounts(found[overdrawn(found)])
        for ledger in np.unique(found["ledger"]).tolist():
            mine = found[found["ledger"] == ledger]
            for state in ("posted", "pending"):
                sums = self._sums.setdefault((ledger, state), [0, 0])
                for at, side in enumerate(("debits", "credits")):
                    sums[at] += value_of(limbs_of(mine[f"{side}_{state}"]).sum(axis=0))

    def check_pending(self) -> str:
        """The problem of accounts that still hold something; empty when there is none."""
        return self._pending.text("accounts still have pending amounts:")

    def check_balances(self, postings: Sorter) -> Check:
        """Every account is there, with exactly what it had and the stored transfers add up to."""
        missing, differing = Named(), Named()
        for rows in merge([_widened(postings.sorted()), self._rows.sorted()]):
            begins = np.flatnonzero(np.append(True, rows[1:, 0] != rows[:-1, 0]))
            of = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(rows))))
            has = {kind: np.zeros(len(begins), bool) for kind in (_ASKED, _FOUND)}
            for kind, flags in has.items():
                flags[of[rows[:, 1] == kind]] = True
            asked = np.flatnonzero(rows[:, 1] == _ASKED)
            lost = asked[~has[_FOUND][of[asked]]]
            missing.add(len(lost), (_name(rows[row]) for row in lost))
            found = np.flatnonzero((rows[:, 1] == _FOUND) & has[_ASKED][of])
            for side, column in _POSTED.items():
                sums = np.zeros((len(begins), LIMBS), np.uint64)
                sums[of[asked]] = limbs_of(rows[asked, column : column + 2])  # an earlier run's
                posted = rows[:, 1] == side
                sums[of[posted]] += rows[posted, 2 : 2 + LIMBS]
                expected = carried(sums)[of[found]]
                is_wrong = (expected != limbs_of(rows[found, column : column + 2])).any(axis=1)
                named = (
                    f"account {_name(rows[row])} {_SIDES[side]}: expected {value_of(want)}, found "
                    f"{int(rows[row, column]) | int(rows[row, column + 1]) << 64}"
                    for row, want in zip(found[is_wrong], expected[is_wrong], strict=True)
                )
                differing.add(int(np.count_nonzero(is_wrong)), named)
        problems = [
            missing.text("accounts are not in the ledger:"),
            differing.told("balances differ"),
        ]
        good = f"{self.count:,} accounts have exactly the balances the transfers add up to"
        return judged("balances", problems, good)

    def check_conservation(self) -> Check:
        """Per ledger, debits equal credits: posted and pending. Money only moves."""
        problems = [
            f"ledger {ledger}: debits_{state} {debits}, credits {credited}"
            for (ledger, state), (debits, credited) in sorted(self._sums.items())
            if debits != credited
        ]
        count = len({ledger for ledger, _ in self._sums})
        return judged("conservation", problems, f"debits equal credits on {count} ledgers")

    def check_no_overdraft(self) -> Check:
        """No account that must not overdraw has more debits, pending included, than credits."""
        problem = self._overdrawn.text("overdrawn: account")
        return judged("no overdraft", [problem], "no wallet has spent more than it had")


def _widened(postings: Iterator[Words]) -> Iterator[Words]:
    """Sums of accounts as rows of the same width as accounts."""
    for rows in postings:
        wide = np.zeros((len(rows), _WIDTH), np.uint64)
        wide[:, : rows.shape[1]] = rows
        yield wide


def _name(row: Words) -> str:
    return hex(int(row[2]) | int(row[3]) << 64)
