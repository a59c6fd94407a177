"""The replay: a model executes all operations in the cluster's order, and must answer the same."""

from __future__ import annotations

from loadtests.proof.checker.final import FinalReads
from loadtests.proof.checker.model import (
    DEBITS_MUST_NOT_EXCEED_CREDITS,
    EXCEEDS_CREDITS,
    Model,
    OutsideModelError,
)
from loadtests.proof.checker.placing import Placed, place
from loadtests.proof.checker.problems import Problems
from loadtests.run.history import CREATED, EXISTS, Account, History, Operation
from loadtests.run.result import Check

AMOUNTS = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


def check_replay(history: History, final: FinalReads) -> list[Check]:
    """Statuses, stored timestamps, and all that was read, against the model."""
    replay = _Replay(history, final)
    try:
        for placed in place(history, final):
            replay.take(placed)
    except OutsideModelError as error:
        return [Check(name="replay", verdict="unknown", detail=str(error))]
    return [
        replay.answers.check(f"{replay.events:,} answers are the model's"),
        replay.reads.check(f"{replay.records:,} records read are the model's"),
        replay.overdrafts.check(f"no wallet was seen overdrawn in {replay.records:,} records read"),
    ]


class _Replay:
    def __init__(self, history: History, final: FinalReads) -> None:
        self.model, self.final = Model(), final
        self.answers, self.reads = Problems("answers"), Problems("reads")
        self.overdrafts = Problems("overdrafts seen")
        self.events = self.records = 0
        #: Transfer id -> when its first attempt without an answer was invoked.
        self._unanswered: dict[int, int] = {}
        for operation in history.operations:
            if operation.outcome == "unknown":
                for event in operation.transfers:
                    earliest = self._unanswered.get(event.id, operation.invoked)
                    self._unanswered[event.id] = min(earliest, operation.invoked)

    def take(self, placed: Placed) -> None:
        """Execute one operation."""
        operation = placed.operation
        if operation.kind == "create_accounts":
            self._create_accounts(placed)
        elif operation.kind == "create_transfers":
            self._create_transfers(placed)
        else:
            self.model.expiries.advance(placed.timestamp)
            self._read_transfers(operation)
            self._read_accounts(operation)

    def _create_accounts(self, placed: Placed) -> None:
        operation = placed.operation
        first = placed.timestamp - len(operation.accounts) + 1
        for index, account in enumerate(operation.accounts):
            status = self.model.create_account(account, first + index)
            self._compare(operation, index, account.id, status, first + index)

    def _create_transfers(self, placed: Placed) -> None:
        operation = placed.operation
        first = placed.timestamp - len(operation.transfers) + 1
        observed = operation.statuses or self._resolved(operation, first)
        completed = operation.completed
        self.model.doubtful = {
            event.id
            for event in operation.transfers
            if event.id in self._unanswered
            and (completed is None or self._unanswered[event.id] < completed)
        }
        statuses = self.model.create_transfers(operation.transfers, placed.timestamp, observed)
        for index, status in enumerate(statuses):
            self._compare(operation, index, operation.transfers[index].id, status, first + index)

    def _resolved(self, operation: Operation, first: int) -> tuple[str, ...]:
        """For a batch without an answer: what the final reads say of each event."""
        stored = self.final.transfers
        return tuple(
            CREATED
            if event.id in stored and stored[event.id].timestamp == first + index
            else EXCEEDS_CREDITS
            for index, event in enumerate(operation.transfers)
        )

    def _compare(
        self, operation: Operation, index: int, identity: int, status: str, at: int
    ) -> None:
        self.events += 1
        if operation.outcome == "unknown":
            self._compare_unanswered(operation, identity, status, at)
            return
        found, stamp = operation.statuses[index], operation.timestamps[index]
        if found != status:
            self.answers.add(f"{operation}: {identity:#x}: expected {status}, found {found}")
        elif status == CREATED and stamp != at:
            self.answers.add(f"{operation}: {identity:#x}: created at {stamp}, expected {at}")
        elif status == EXISTS and stamp != self._created_at(identity):
            expected = self._created_at(identity)
            self.answers.add(f"{operation}: {identity:#x}: exists at {stamp}, expected {expected}")

    def _compare_unanswered(
        self, operation: Operation, identity: int, status: str, at: int
    ) -> None:
        stored = self.final.transfers.get(identity) or self.final.accounts.get(identity)
        is_stored = stored is not None and stored.timestamp == at
        if (status == CREATED) != is_stored:
            what = "is in the ledger" if is_stored else "is not in the ledger at its place"
            self.answers.add(f"{operation}: {identity:#x}: the model says {status}, it {what}")

    def _created_at(self, identity: int) -> int:
        if identity in self.model.transfers:
            return self.model.transfers[identity].timestamp
        return self.model.balances[identity].account.timestamp

    def _read_transfers(self, operation: Operation) -> None:
        self.records += len(operation.found_transfers)
        if operation.kind == "lookup_transfers":
            expected = [
                self.model.transfers[one] for one in operation.ids if one in self.model.transfers
            ]
            found = list(operation.found_transfers)
            if found != expected:
                known, seen = {one.id for one in expected}, {one.id for one in found}
                self._explain(operation, known, seen)
                for one, other in zip(expected, found, strict=False):
                    if one.id == other.id and one != other:
                        self.reads.add(f"{operation}: expected {one}, found {other}")
        else:  # a query's page: it says nothing of what it does not contain
            for one in operation.found_transfers:
                if self.model.transfers.get(one.id) != one:
                    self.reads.add(f"{operation}: transfer {one.id:#x} is not as it was created")

    def _explain(self, operation: Operation, known: set[int], seen: set[int]) -> None:
        for identity in sorted(known - seen):
            self.reads.add(f"{operation}: transfer {identity:#x} was created, and not found")
        for identity in sorted(seen - known):
            self.reads.add(f"{operation}: transfer {identity:#x} was found before it was created")

    def _read_accounts(self, operation: Operation) -> None:
        """Compare a read with the model: one number of released holds must explain all accounts."""
        self.records += len(operation.found_accounts)
        possible = set(range(len(self.model.expiries.due) + 1))
        for found in operation.found_accounts:
            self._see_overdraft(operation, found)
            balance = self.model.balances.get(found.id)
            if balance is None:
                self.reads.add(f"{operation}: account {found.id:#x} was never created")
                continue
            pending = (found.debits_pending, found.credits_pending)
            steps = self.model.pending_after(balance)
            possible &= {count for count, amounts in enumerate(steps) if amounts == pending}
            posted = (balance.debits_posted, balance.credits_posted)
            if posted != (found.debits_posted, found.credits_posted) or pending not in steps:
                expected = f"posted {posted}, pending {' or '.join(map(str, dict.fromkeys(steps)))}"
                amounts = {name: getattr(found, name) for name in AMOUNTS}
                self.reads.add(f"{operation}: {found.id:#x}: expected {expected}, found {amounts}")
            elif not possible:
                self.reads.add(
                    f"{operation}: {found.id:#x}: pending as at another time than others"
                )
        seen = {one.id for one in operation.found_accounts}
        asked = operation.ids if operation.kind == "lookup_accounts" else ()
        for identity in (one for one in asked if one in self.model.balances and one not in seen):
            self.reads.add(f"{operation}: account {identity:#x} was created, and not found")
        if possible:
            self.model.release(min(possible))

    def _see_overdraft(self, operation: Operation, found: Account) -> None:
        limited = found.flags & DEBITS_MUST_NOT_EXCEED_CREDITS
        if limited and found.debits_posted + found.debits_pending > found.credits_posted:
            self.overdrafts.add(f"{operation}: account {found.id:#x} is overdrawn")
