"""Places in a history where a mutation can strike, and what changing them takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from loadtests.client.records import LINKED
from loadtests.run.history import Account, History, Operation, Transfer

_Place = TypeVar("_Place")


class NoPlaceError(Exception):
    """The history has no place where this mutation could strike."""


def pick(chance: random.Random, places: Iterable[_Place]) -> _Place:
    listed = list(places)
    if not listed:
        raise NoPlaceError
    return chance.choice(listed)


def exchanged(history: History, changed: Operation) -> History:
    """The same with one operation exchanged, by its number."""
    now = (changed if one.number == changed.number else one for one in history.operations)
    return replace(history, operations=tuple(now))


def created(history: History) -> Iterator[Operation]:
    """Transfers that were all acknowledged as created."""
    return (
        o
        for o in history.operations
        if o.kind == "create_transfers" and o.statuses and set(o.statuses) == {"created"}
    )


def with_status(history: History, status: str) -> Iterator[Operation]:
    return (o for o in history.operations if status in o.statuses and o.transfers)


def final(history: History) -> Iterator[Operation]:
    return (o for o in history.operations if o.final)


def is_chain(operation: Operation) -> bool:
    return bool(operation.transfers and operation.transfers[0].flags & LINKED)


def posts(one: Transfer) -> bool:
    return one.flags & ~LINKED == 0


def posted(one: Account) -> tuple[int, int]:
    return one.debits_posted, one.credits_posted


def forget(history: History, done: Operation) -> History:
    """Without the first transfer of an operation in the final reads."""
    lost = done.transfers[0].id
    for read in final(history):
        kept = tuple(one for one in read.found_transfers if one.id != lost)
        history = exchanged(history, replace(read, found_transfers=kept))
    return history


def in_final(
    history: History,
    chance: random.Random,
    change: Callable[[Transfer], Transfer],
    among: Callable[[Transfer], bool] = lambda _: True,
) -> History:
    """With one stored transfer changed in the final reads."""
    stored = (one for o in final(history) for one in o.found_transfers)
    chosen = pick(chance, filter(among, stored))
    for read in final(history):
        found = tuple(change(one) if one.id == chosen.id else one for one in read.found_transfers)
        history = exchanged(history, replace(read, found_transfers=found))
    return history


def store(history: History, one: Transfer) -> History:
    """With one more transfer in the final reads."""
    for read in final(history):
        if read.kind == "query_transfers":
            found = tuple(sorted((*read.found_transfers, one), key=lambda each: each.timestamp))
            history = exchanged(history, replace(read, found_transfers=found))
    return history


def balances(history: History, change: Callable[[Account], Account]) -> History:
    """With changed accounts in the final reads."""
    for read in final(history):
        found = tuple(map(change, read.found_accounts))
        history = exchanged(history, replace(read, found_accounts=found))
    return history


def acknowledge(history: History, chance: random.Random, status: str) -> History:
    """With a refused transfer acknowledged, and stored."""
    refused = pick(chance, (o for o in with_status(history, status) if len(o.transfers) == 1))
    history = exchanged(history, replace(refused, statuses=("created",), outcome="ok"))
    return store(history, replace(refused.transfers[0], timestamp=refused.timestamp))
