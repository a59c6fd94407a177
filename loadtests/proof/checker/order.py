"""Checks of time: timestamps are unique, agree with real time, and never go back in a session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from loadtests.proof.checker.final import FinalReads
from loadtests.proof.checker.placing import Placed, place
from loadtests.proof.checker.problems import Problems
from loadtests.run.history import CREATED, History, Operation
from loadtests.run.result import Check


def check_timestamps(history: History) -> Check:
    """No two operations, and no two created transfers or accounts, share a timestamp."""
    problems = Problems("timestamps unique")
    operations: dict[int, Operation] = {}
    created: dict[int, tuple[int, Operation]] = {}
    for operation in history.operations:
        if operation.timestamp:
            other = operations.setdefault(operation.timestamp, operation)
            if other is not operation:
                problems.add(f"{operation} and {other} share {operation.timestamp}")
        for event, status, stamp in zip(
            operation.events, operation.statuses, operation.timestamps, strict=False
        ):
            if status != CREATED:
                continue
            owner, other = created.setdefault(stamp, (event.id, operation))
            if owner != event.id:
                problems.add(f"{operation} and {other}: {owner:#x} and {event.id:#x} at {stamp}")
    return problems.check(f"{len(operations):,} operations and {len(created):,} creations")


def check_real_time(history: History, final: FinalReads) -> Check:
    """An operation that completed before another was invoked has the smaller timestamp."""
    problems = Problems("real-time order")
    placed = place(history, final)
    by_start = sorted(placed, key=lambda one: one.operation.invoked)
    by_end = sorted(
        (one for one in placed if one.operation.completed is not None),
        key=lambda one: one.operation.completed or 0,
    )
    newest: Placed | None = None
    at = 0
    for one in by_start:
        while at < len(by_end) and (by_end[at].operation.completed or 0) < one.operation.invoked:
            if newest is None or by_end[at].timestamp > newest.timestamp:
                newest = by_end[at]
            at += 1
        if newest is not None and one.timestamp <= newest.timestamp:
            problems.add(
                f"{one.operation} was invoked after {newest.operation} had completed, but its "
                f"timestamp {one.timestamp} is not after {newest.timestamp}"
            )
    return problems.check(f"{len(placed):,} operations in the order of real time")


def check_monotonic(history: History) -> Check:
    """Within a session, no account's posted amounts are ever read lower than before."""
    problems = Problems("posted never decreases")
    reads = 0
    for session in _sessions(history.operations):
        seen: dict[int, tuple[int, int]] = {}
        for operation in sorted(session, key=lambda one: one.completed or 0):
            for account in operation.found_accounts:
                reads += 1
                now = (account.debits_posted, account.credits_posted)
                before = seen.get(account.id, (0, 0))
                if now[0] < before[0] or now[1] < before[1]:
                    problems.add(
                        f"{operation}: account {account.id:#x} had debits, credits {before}, "
                        f"now {now}"
                    )
                seen[account.id] = now
    return problems.check(f"{reads:,} balances read")


def _sessions(operations: Iterable[Operation]) -> Iterable[list[Operation]]:
    sessions: dict[tuple[int, int], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.completed is not None:
            sessions[operation.worker, operation.session].append(operation)
    return sessions.values()
