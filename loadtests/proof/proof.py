"""The proof that a ledger holds what the cluster acknowledged to a run: pure, on numpy columns.

The claim: every acknowledged transfer is in the ledger once, with the fields that were sent. Of the
run's other transfers, only those whose outcome was unknown may be there, each in full or not at
all. The accounts' balances are the sum of exactly these. Equal debits and credits prove none of it.

The run's record is matched with the ledger by timestamp: an acknowledgement contains the timestamp
that the ledger stores. Both sides are sorted by it, so millions of rows are compared in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtests.client.columns import (
    LIMBS,
    Lows,
    among,
    among_ids,
    carried,
    limbs_of,
    repeated,
    value_of,
)
from loadtests.client.records import PENDING, POST, TRANSFER, VOID, Array, join, overdrawn
from loadtests.proof.record import Record
from loadtests.run.result import Check, Verdict

NAMED_MAX = 3
#: Rows of 128 bytes that are copied at a time.
_PIECE_ROWS = 1 << 17


class Proof:
    """Compare the ledger page by page, then the accounts, then give all checks."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._seen = np.zeros(len(record.rows), bool)
        self._lows: list[Lows] = []
        self._differing: list[str] = []
        self._differ_count = 0
        self._extra: list[Array] = []
        self.count = 0

    def add_page(self, page: Array) -> None:
        """One page of the run's transfers as the ledger holds them, ascending by timestamp."""
        record = self.record
        self.count += len(page)
        self._lows.append(np.ascontiguousarray(page["id"][:, 0]))
        at = np.searchsorted(record.stamps, page["timestamp"])
        known = at < len(record.stamps)
        known[known] = record.stamps[at[known]] == page["timestamp"][known]
        self._seen[at[known]] = True
        sent = record.lines["sent"][record.rows[at[known]]]
        self._compare(sent, page[known])
        if not known.all():
            self._extra.append(page[~known].copy())

    def _compare(self, sent: Array, found: Array) -> None:
        expected = sent.copy()
        expected["timestamp"] = found["timestamp"]
        differs = (_words(expected) != _words(found)).any(axis=1)
        self._differ_count += int(np.count_nonzero(differs))
        for row in np.flatnonzero(differs)[: NAMED_MAX - len(self._differing)]:
            self._differing.append(_difference(expected[row], found[row]))

    def finish(self, accounts: Array, asked: Array) -> list[Check]:
        """All checks. ``accounts`` as found in the ledger, ``asked`` as the run created them."""
        self._present = self._stored_lows()
        extra = np.concatenate(self._extra) if self._extra else np.empty(0, TRANSFER)
        unknown = np.isin(extra["id"][:, 0], self.record.unanswered)
        self.committed = extra[unknown]
        return [
            self._check_acknowledged(),
            self._check_once(),
            self._check_unknown(),
            self._check_nothing_else(extra[~unknown]),
            self._check_chains(),
            self._check_holds(accounts),
            self._check_balances(accounts, asked),
            check_conservation(accounts),
            check_no_overdraft(accounts),
        ]

    def _check_acknowledged(self) -> Check:
        wanted = self._must_be_there()
        lost = self.record.lows[self.record.rows[wanted & ~self._seen]]
        problems = [self._named("acknowledged, but not in the ledger", lost)]
        if self._differ_count:
            named = "; ".join(self._differing)
            problems.append(f"{self._differ_count:,} stored with other fields: {named}")
        count = int(np.count_nonzero(wanted))
        good = f"{count:,} acknowledged transfers are in the ledger, fields equal"
        return _check("acknowledged", problems, good)

    def _must_be_there(self) -> npt.NDArray[np.bool_]:
        """Which of the acknowledged: of a whole ledger all; of a copy those before it was taken.

        A ledger grows at its end alone. So whatever is older than something that a copy has, as
        the cluster has acknowledged it, was there before the copy, too: without any clock.
        """
        record, seen = self.record, np.flatnonzero(self._seen)
        newest = record.stamps[seen[-1]] if len(seen) else 0
        wanted: npt.NDArray[np.bool_] = record.before[record.rows] | (record.stamps < newest)
        return wanted

    def _check_once(self) -> Check:
        twice_created = repeated(self.record.created_lows)
        twice_stored = repeated(self._present)
        shared = self.record.one_stamp_two_ids
        problems = [
            self._named("acknowledged as created twice", twice_created),
            self._named("stored twice", twice_stored),
            self._named("acknowledged with another transfer's timestamp", shared),
        ]
        return _check("once", problems, "every id was created once, at its own timestamp")

    def _check_unknown(self) -> Check:
        record, committed = self.record, self.committed
        rows: dict[int, int] = {}
        differing: list[str] = []
        if len(committed):
            wanted = np.isin(record.lows, committed["id"][:, 0])
            rows = {int(record.lows[row]): int(row) for row in np.flatnonzero(wanted)[::-1]}
        for found in committed:
            expected = record.lines["sent"][rows[int(found["id"][0])]].copy()
            expected["timestamp"] = found["timestamp"]
            if expected.tobytes() != found.tobytes():
                differing.append(_difference(expected, found))
        sent = len(record.unanswered)
        held = int(np.count_nonzero(among(record.unanswered, self._present)))
        self.resolved = {"committed": held, "absent": sent - held}
        named = "; ".join(differing[:NAMED_MAX])
        problems = [f"stored with other fields: {named}" if differing else ""]
        good = f"{sent:,} unanswered: {held:,} committed, {sent - held:,} absent"
        return _check("unknown resolved", problems, good)

    def _check_nothing_else(self, extra: Array) -> Check:
        lows: Lows = np.ascontiguousarray(extra["id"][:, 0])
        sent = np.isin(lows, self.record.lows)
        foreign = extra["id"][:, 1] != self.record.tag
        problems = [
            self._named("stored, though refused or at another timestamp", lows[sent & ~foreign]),
            self._named("stored, but not in the record", lows[~sent & ~foreign]),
            self._named("stored with this run's tag, but with a foreign id", lows[foreign]),
        ]
        return _check("nothing else", problems, "the ledger holds nothing else of this run")

    def _check_chains(self) -> Check:
        sent = self.record.lines["sent"]
        legs = np.flatnonzero((sent["user_data_128"] != 0).any(axis=1))
        lows, first = np.unique(self.record.lows[legs], return_index=True)
        chain = sent["user_data_128"][legs[first]][:, 0]
        chains, of = np.unique(chain, return_inverse=True)
        present = among(lows, self._present)
        total, stored = np.bincount(of), np.bincount(of, weights=present)
        torn = (stored > 0) & (stored < total)
        missing = lows[torn[of] & ~present] if len(chains) else lows
        problems = [self._named("missing from a chain whose other legs are stored", missing)]
        return _check("chains whole", problems, f"{len(chains):,} linked chains: whole or absent")

    def _check_holds(self, accounts: Array) -> Check:
        holds, settled, twice = self._holds()
        pending = accounts[
            (accounts["debits_pending"] != 0).any(axis=1)
            | (accounts["credits_pending"] != 0).any(axis=1)
        ]
        problems = [
            self._named("settled twice", twice),
            _accounts("accounts still have pending amounts:", pending),
        ]
        good = f"{holds:,} holds: {settled:,} captured or voided, {holds - settled:,} timed out"
        return _check("holds settled", problems, good)

    def _holds(self) -> tuple[int, int, Lows]:
        """Stored holds, how many of them were settled, and any that were settled twice."""
        holds, ended = 0, [np.empty(0, np.uint64)]
        for sent in self._stored():
            holds += int(np.count_nonzero(sent["flags"] & PENDING))
            ended.append(sent["pending_id"][(sent["flags"] & (POST | VOID)) != 0, 0])
        pending: Lows = np.sort(np.concatenate(ended))
        return holds, len(np.unique(pending)), repeated(pending)

    def _stored_lows(self) -> Lows:
        return np.sort(np.concatenate(self._lows or [np.empty(0, np.uint64)]))

    def _stored(self) -> Iterator[Array]:
        """What was sent and is in the ledger, each id once, in pieces that fit into memory."""
        lows, first = np.unique(self.record.lows, return_index=True)
        rows = first[among(lows, self._present)]
        for start in range(0, len(rows), _PIECE_ROWS):
            yield self.record.lines["sent"][rows[start : start + _PIECE_ROWS]]

    def last_expiry_ns(self) -> int:
        """When the last stored and unsettled hold times out, on the cluster's clock; 0 if none."""
        present = self._stored_lows()
        sent = self.record.lines["sent"]
        ends = (sent["flags"] & (POST | VOID)) != 0
        ended = np.sort(sent["pending_id"][ends & among(self.record.lows, present), 0])
        holds = (sent["flags"] & PENDING) != 0
        open_holds = self.record.lines[holds & ~among(self.record.lows, ended)]
        if not len(open_holds):
            return 0
        timeouts = open_holds["sent"]["timeout"].astype(np.uint64) * np.uint64(1_000_000_000)
        return int((open_holds["result"]["timestamp"] + timeouts).max())

    def _check_balances(self, accounts: Array, asked: Array) -> Check:
        missing = asked[~among_ids(asked["id"], accounts["id"])]
        expected = self._expected(asked)
        problems = [_accounts("accounts are not in the ledger:", missing)]
        order = np.argsort(asked["id"][:, 0])
        at = np.searchsorted(asked["id"][order, 0], accounts["id"][:, 0])
        wrong: list[str] = []
        count = 0
        for side, sums in expected.items():
            found = limbs_of(accounts[side])
            differs = (carried(sums[order[at]]) != found).any(axis=1)
            count += int(np.count_nonzero(differs))
            for row in np.flatnonzero(differs)[: NAMED_MAX - len(wrong)]:
                wrong.append(
                    f"account {hex(join(accounts['id'][row]))} {side}: expected "
                    f"{value_of(sums[order[at[row]]])}, found {join(accounts[side][row])}"
                )
        if count:
            problems.append(f"{count:,} balances differ: {'; '.join(wrong)}")
        good = f"{len(accounts):,} accounts have exactly the balances the transfers add up to"
        return _check("balances", problems, good)

    def _expected(self, asked: Array) -> dict[str, Array]:
        """Posted sums of every account of ``asked``, as limbs: those it had, and what is stored."""
        order = np.argsort(asked["id"][:, 0])
        lows = asked["id"][order, 0]
        sides = {"debits_posted": "debit_account_id", "credits_posted": "credit_account_id"}
        sums: dict[str, Array] = {side: limbs_of(asked[side]) for side in sides}
        for sent in self._stored() if len(asked) else ():
            posted = sent[(sent["flags"] & (PENDING | VOID)) == 0]
            amounts = limbs_of(posted["amount"])
            for side, column in sides.items():
                account = posted[column][:, 0]
                at = np.minimum(np.searchsorted(lows, account), len(lows) - 1)
                known = lows[at] == account
                for limb in range(LIMBS):
                    np.add.at(sums[side][:, limb], order[at[known]], amounts[known, limb])
        return sums

    def _named(self, problem: str, lows: Lows) -> str:
        if not len(lows):
            return ""
        named = ", ".join(hex(self.record.tag << 64 | int(low)) for low in lows[:NAMED_MAX])
        return f"{len(lows):,} {problem}: transfer {named}" + ", …" * (len(lows) > NAMED_MAX)


def check_conservation(accounts: Array) -> Check:
    """Per ledger, debits equal credits: posted and pending. Money only moves."""
    problems, ledgers = [], np.unique(accounts["ledger"])
    for ledger in ledgers:
        mine = accounts[accounts["ledger"] == ledger]
        for kind in ("posted", "pending"):
            debits = value_of(limbs_of(mine[f"debits_{kind}"]).sum(axis=0))
            credited = value_of(limbs_of(mine[f"credits_{kind}"]).sum(axis=0))
            if debits != credited:
                problems.append(f"ledger {ledger}: debits_{kind} {debits}, credits {credited}")
    return _check("conservation", problems, f"debits equal credits on {len(ledgers)} ledgers")


def check_no_overdraft(accounts: Array) -> Check:
    """No account that must not overdraw has more debits, pending included, than credits."""
    problems = [_accounts("overdrawn: account", accounts[overdrawn(accounts)])]
    return _check("no overdraft", problems, "no wallet has spent more than it had")


def verdict_of(checks: list[Check]) -> Verdict:
    """Failed if anything is; else unknown if anything could not be read; else passed."""
    verdicts = {check.verdict for check in checks}
    if "failed" in verdicts:
        return "failed"
    return "unknown" if "unknown" in verdicts or not checks else "passed"


def _check(name: str, problems: list[str], good: str) -> Check:
    found = [problem for problem in problems if problem]
    return Check(
        name=name, verdict="failed" if found else "passed", detail="; ".join(found) or good
    )


def _accounts(problem: str, accounts: Array) -> str:
    named = ", ".join(hex(join(account["id"])) for account in accounts[:NAMED_MAX])
    return f"{len(accounts):,} {problem} {named}" if len(accounts) else ""


def _words(transfers: Array) -> npt.NDArray[np.uint64]:
    words: npt.NDArray[np.uint64] = np.ascontiguousarray(transfers).view("<u8").reshape(-1, 16)
    return words


def _difference(expected: Any, found: Any) -> str:
    names = [n for n in TRANSFER.names or () if (expected[n] != found[n]).any()]
    what = ", ".join(f"{n} sent {_text(expected[n])}, stored {_text(found[n])}" for n in names)
    return f"transfer {hex(join(expected['id']))}: {what}"


def _text(value: Any) -> str:
    return str(join(value) if np.ndim(value) else int(value))
