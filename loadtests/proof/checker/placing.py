"""When, on the cluster's clock, each operation took effect: by its reply or the final reads."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.proof.checker.final import FinalReads
from loadtests.run.history import CREATED, History, Operation


@dataclass(frozen=True, slots=True)
class Placed:
    """An operation and its timestamp: the one of its last event, or of its read."""

    operation: Operation
    timestamp: int


def place(history: History, final: FinalReads) -> list[Placed]:
    """Every operation that is known to have been executed, in the order of the cluster's clock.

    Of several unanswered attempts at the same transfers only one created them. The first one is
    placed for all of them: real time constrains it least.
    """
    placed = [Placed(one, one.timestamp) for one in history.operations if one.timestamp]
    acknowledged = {
        stamp
        for operation in history.operations
        for status, stamp in zip(operation.statuses, operation.timestamps, strict=False)
        if status == CREATED
    }
    unanswered = [one for one in history.operations if one.outcome == "unknown" and one.is_create]
    taken: set[int] = set()
    for operation in sorted(unanswered, key=lambda one: one.invoked):
        timestamp = _found_at(operation, final)
        if timestamp and timestamp not in taken and not acknowledged & _span(operation, timestamp):
            taken.add(timestamp)
            placed.append(Placed(operation, timestamp))
    return sorted(placed, key=lambda one: one.timestamp)


def _found_at(operation: Operation, final: FinalReads) -> int:
    """The timestamp of the batch, from the first of its events that is stored; 0 if none is."""
    events = operation.events
    for index, event in enumerate(events):
        stored = final.transfers.get(event.id) or final.accounts.get(event.id)
        if stored is not None:
            return stored.timestamp + len(events) - 1 - index
    return 0


def _span(operation: Operation, timestamp: int) -> set[int]:
    count = len(operation.events)
    return set(range(timestamp - count + 1, timestamp + 1))
