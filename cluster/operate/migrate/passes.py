"""One pass after the other brings the new cluster nearer to the old one, and proves what it has.

What a ledger holds up to a timestamp never changes again, but for balances. So whatever a pass has
imported it reads back at once and compares; at the end only the balances are left to be proven, and
that nothing is newer. A pass reads what is new in the old ledger twice: first for the holds that
have ended, since a hold that ran out is left out; then it imports, up to the first hold of which it
is not known yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from cluster.operate.migrate import plan
from cluster.operate.migrate.clusters import Cluster, Newest
from cluster.operate.migrate.plan import Alive, Unended
from cluster.refusal import Refusal
from loadtests.client.external import Cursor, Sorter
from loadtests.client.progress import Progress
from loadtests.client.records import ACCOUNT, TRANSFER, Array

_NO_ACCOUNTS = np.empty(0, ACCOUNT)


@dataclass(frozen=True)
class Pass:
    """What a pass has done."""

    imported: int  # transfers
    behind: int  # transfers that wait for a hold
    alive: Alive
    seconds: float


@dataclass
class Move:
    """One migration: how far the new cluster has been proven to be equal."""

    source: Cluster
    target: Cluster
    folder: Path | None = None
    proven: int = 0  # the timestamp up to which all transfers are equal
    left_out: int = 0  # holds that ran out
    transfers: int = 0  # that were compared
    problems: list[str] = field(default_factory=list)
    _there: Newest = field(default=Newest(0, 0))  # what the new cluster has

    def __post_init__(self) -> None:
        self._holds, self._closed = Unended(self.folder), Unended(self.folder)
        self._seen = self._seen_count = 0  # up to where these are known, and how many transfers

    def begin(self) -> None:
        """See that the new cluster has nothing but what this migration has brought before.

        Raises Refusal: only a new cluster, or one that a migration has begun to fill, will do.
        """
        there, foreign = self.target.newest(), 0
        for page in self.target.accounts():
            first, last = int(page["timestamp"][0]), int(page["timestamp"][-1])
            known = [each["timestamp"] for each in self.source.accounts(first - 1, last)]
            known.append(np.empty(0, np.uint64))
            foreign += int((~np.isin(page["timestamp"], np.concatenate(known))).sum())
        newest = there.transfer
        is_known = not newest or any(True for _ in self.source.transfers(newest - 1, newest))
        if foreign or not is_known:
            found = f"{foreign} accounts of its own" if foreign else "transfers of its own"
            target = self.target
            raise Refusal(
                f"TO: expected a cluster that never had an account, found {found} in "
                f"{target.label}: what is older could not be imported after that. Fix: format a "
                f"new one, and start it with `make up {target.named} CANARY=read`, which writes "
                "nothing"
            )
        self._there = there

    def catch_up(self, now_ns: int | None = None) -> Pass:
        """Import what is new, and compare it.

        While the old cluster serves, a hold has run out when the cluster's own timestamps say so.
        When nobody writes to it any more there are no newer ones: then ``now_ns`` says it, the time
        here. Raises Refusal.
        """
        begun, source = time.monotonic(), self.source
        until = max(source.newest())
        if not until:
            return Pass(0, 0, Alive(), 0.0)
        for page in source.accounts(self._there.account, until):
            plan.note_closed(page, self._closed)
        newest = source.newest()  # again: an account seen as closed was closed by now
        self._look_through(newest.transfer)
        open_holds, self._holds = self._holds.left(self.proven)
        alive = plan.alive(open_holds, now_ns or max(newest))
        self._import_accounts(until, self._closed.left()[0])
        horizon = min(until, alive.first - 1) if alive.count else until
        imported = self._import_transfers(horizon, open_holds)
        behind = self._seen_count - self.transfers if alive.count else 0
        return Pass(imported, behind, alive, time.monotonic() - begun)

    def prove(self) -> list[str]:
        """How both differ, when nobody writes to the old cluster; empty when they are equal."""
        problems = [
            f"transfers: {cluster.name} has some that were not compared, after {self.proven}"
            for cluster in (self.source, self.target)
            if cluster.newest().transfer > self.proven
        ]
        pages = zip_longest(self.source.accounts(), self.target.accounts(), fillvalue=_NO_ACCOUNTS)
        for old, new in pages:
            problems += plan.differences(plan.as_imported(old), new, "accounts and balances")
            if problems:
                break
        return problems

    def is_behind(self, newest: Newest) -> bool:
        """Whether the old ledger goes further than what was imported."""
        return newest.transfer > self.proven or newest.account > self._there.account

    def _look_through(self, until: int) -> None:
        """Note what ends a hold or closes an account, in what was not looked through before."""
        if until <= self._seen:
            return
        count, progress = 0, Progress(f"  {self.source.name}: transfers looked through")
        for page in self.source.transfers(self._seen, until):
            plan.note_holds(page, self._holds)
            plan.note_closing(page, self._closed)
            progress.show(count := count + len(page))
        self._seen, self._seen_count = until, self._seen_count + count

    def _import_accounts(self, until: int, created_closed: Sorter) -> None:
        closed = Cursor(created_closed.sorted())
        for page in self.source.accounts(self._there.account, until):
            plan.check_order("accounts", page)
            self.target.create_accounts(plan.importable(page, plan.among_stamps(page, closed)))
            self._there = Newest(int(page["timestamp"][-1]), self._there.transfer)

    def _import_transfers(self, until: int, open_holds: Sorter) -> int:
        """Up to this timestamp; how many were not there yet."""
        done, seen, ran_out = 0, 0, Cursor(open_holds.sorted())
        count = self._seen_count - self.transfers
        progress = Progress(f"  {self.target.name}: transfers imported and compared", count)
        for rows in plan.whole_chains(self.source.transfers(self.proven, until)):
            left_out = plan.among_stamps(rows, ran_out)
            sent, last = plan.imported(rows, left_out), int(rows["timestamp"][-1])
            for part in plan.batches(sent[sent["timestamp"] > self._there.transfer]):
                self.target.create_transfers(part)
                done += len(part)
            self._there = Newest(self._there.account, max(self._there.transfer, last))
            self.problems += plan.differences(sent, self._read_back(last), "transfers")
            if self.problems:
                break
            self.proven = last
            self.left_out += int(left_out.sum())
            self.transfers += len(rows)
            progress.show(seen := seen + len(rows))
        return done

    def _read_back(self, until: int) -> Array:
        pages = list(self.target.transfers(self.proven, until))
        return np.concatenate(pages) if pages else np.empty(0, TRANSFER)
