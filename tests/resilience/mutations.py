"""Ways to break an honest history, one for each thing that must not happen.

A mutation picks a place at random and returns the broken history; ``NoPlaceError`` where there is
none. Each is wrong wherever it strikes: a ledger that works cannot have said this.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from loadtests.history import Account, History, Operation, Transfer
from loadtests.records import LINKED, MUST_NOT_OVERDRAW, PENDING

Mutation = Callable[[History, random.Random], History]
_Place = TypeVar("_Place")


class NoPlaceError(Exception):
    """The history has no place where this mutation could strike."""


MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """Add to the catalogue."""
    MUTATIONS[function.__name__] = function
    return function


# -- what the ledger lost, invented or changed -----------------------------------------------------


@mutation
def acknowledged_transfer_is_lost(history: History, chance: random.Random) -> History:
    return _forget(history, _pick(chance, _created(history)))


@mutation
def one_leg_of_a_chain_is_lost(history: History, chance: random.Random) -> History:
    return _forget(history, _pick(chance, (o for o in _created(history) if _is_chain(o))))


@mutation
def stored_amount_is_altered(history: History, chance: random.Random) -> History:
    return _in_final(history, chance, lambda one: replace(one, amount=one.amount + 1))


@mutation
def stored_owner_is_altered(history: History, chance: random.Random) -> History:
    return _in_final(
        history, chance,
        lambda one: replace(
            one, debit_account_id=one.credit_account_id, credit_account_id=one.debit_account_id
        ),
    )  # fmt: skip


@mutation
def stored_timestamp_is_altered(history: History, chance: random.Random) -> History:
    """Only of what was acknowledged: nobody was told the timestamp of the others."""
    told = {one.id for done in _created(history) for one in done.transfers}
    return _in_final(
        history, chance,
        lambda one: replace(one, timestamp=one.timestamp + 1), among=lambda one: one.id in told,
    )  # fmt: skip


@mutation
def refused_transfer_left_a_trace(history: History, chance: random.Random) -> History:
    refused = _pick(chance, _with_status(history, "exceeds_credits"))
    return _store(history, replace(refused.transfers[-1], timestamp=refused.timestamp))


@mutation
def transfer_nobody_sent_is_stored(history: History, chance: random.Random) -> History:
    done = _pick(chance, _created(history))
    return _store(history, replace(done.transfers[0], id=done.transfers[0].id + 2**40,
                                   timestamp=done.timestamp + 1))  # fmt: skip


@mutation
def half_of_a_chain_without_answer_is_stored(history: History, chance: random.Random) -> History:
    acknowledged = {one.id for done in _created(history) for one in done.transfers}
    answered = {one.id for o in history.operations if o.outcome != "unknown" for one in o.transfers}
    lost = _pick(
        chance,
        (
            o for o in history.operations
            if o.outcome == "unknown" and _is_chain(o)
            and not {one.id for one in o.transfers} & (acknowledged | answered)
        ),
    )  # fmt: skip
    stored = {one.id for o in _final(history) for one in o.found_transfers}
    first = lost.transfers[0]
    if first.id in stored:
        return _forget(history, lost)
    return _store(history, replace(first, timestamp=history.operations[-1].timestamp - 7))


@mutation
def transfer_moved_its_amount_twice(history: History, chance: random.Random) -> History:
    done = _pick(chance, (o for o in _created(history) if _posts(o.transfers[0])))
    moved = done.transfers[0]

    def doubled(one: Account) -> Account:
        return replace(
            one,
            debits_posted=one.debits_posted + moved.amount * (one.id == moved.debit_account_id),
            credits_posted=one.credits_posted + moved.amount * (one.id == moved.credit_account_id),
        )

    return _balances(history, doubled)


@mutation
def money_appeared(history: History, chance: random.Random) -> History:
    lucky = _pick(chance, (one for o in _final(history) for one in o.found_accounts))
    return _balances(
        history,
        lambda one: (
            replace(one, credits_posted=one.credits_posted + 1) if one.id == lucky.id else one
        ),
    )


@mutation
def hold_never_ended(history: History, chance: random.Random) -> History:
    held = _pick(chance, (o for o in _created(history) if o.transfers[0].flags & PENDING))
    hold = held.transfers[0]

    def kept(one: Account) -> Account:
        return replace(
            one,
            debits_pending=hold.amount * (one.id == hold.debit_account_id),
            credits_pending=hold.amount * (one.id == hold.credit_account_id),
        )

    return _balances(history, kept)


# -- what was answered wrong -----------------------------------------------------------------------


@mutation
def overdraft_is_acknowledged(history: History, chance: random.Random) -> History:
    return _acknowledge(history, chance, "exceeds_credits")


@mutation
def capture_of_nothing_is_acknowledged(history: History, chance: random.Random) -> History:
    return _acknowledge(history, chance, "pending_transfer_not_found")


@mutation
def capture_of_an_expired_hold_is_acknowledged(history: History, chance: random.Random) -> History:
    return _acknowledge(history, chance, "pending_transfer_expired")


@mutation
def id_is_created_twice(history: History, chance: random.Random) -> History:
    again = _pick(chance, (o for o in _with_status(history, "exists") if len(o.statuses) == 1))
    return history.with_operation(
        replace(again, statuses=("created",), timestamps=(again.timestamp,))
    )


@mutation
def changed_retry_is_told_it_exists(history: History, chance: random.Random) -> History:
    changed = _pick(chance, _with_status(history, "exists_with_different_amount"))
    return history.with_operation(replace(changed, statuses=("exists",), outcome="ok"))


@mutation
def created_transfer_is_told_refused(history: History, chance: random.Random) -> History:
    done = _pick(chance, (o for o in _created(history) if len(o.transfers) == 1))
    return history.with_operation(replace(done, statuses=("exceeds_credits",), outcome="rejected"))


@mutation
def refusal_gives_another_reason(history: History, chance: random.Random) -> History:
    refused = _pick(chance, (o for o in history.operations if o.outcome == "rejected"))
    return history.with_operation(
        replace(
            refused,
            statuses=tuple(
                "credit_account_not_found" if s not in ("created", "exists") else s
                for s in refused.statuses
            ),
        )
    )


@mutation
def half_a_chain_is_acknowledged(history: History, chance: random.Random) -> History:
    refused = _pick(chance, _with_status(history, "linked_event_failed"))
    statuses = tuple("created" if s == "linked_event_failed" else s for s in refused.statuses)
    return history.with_operation(replace(refused, statuses=statuses))


# -- what was read wrong ---------------------------------------------------------------------------


@mutation
def read_is_stale(history: History, chance: random.Random) -> History:
    reads = [o for o in history.operations if o.found_accounts]
    pairs = [
        (old, new, one, other)
        for at, old in enumerate(reads)
        for new in reads[at + 1 :]
        for one in old.found_accounts
        for other in new.found_accounts
        if one.id == other.id and _posted(one) != _posted(other)
    ]
    _, new, one, _ = _pick(chance, pairs)
    found = tuple(one if other.id == one.id else other for other in new.found_accounts)
    return history.with_operation(replace(new, found_accounts=found))


@mutation
def posted_amount_decreases_in_a_session(history: History, chance: random.Random) -> History:
    reads = [o for o in history.operations if o.found_accounts]
    pairs = [
        (old, new, one, other)
        for old in reads
        for new in reads
        if (old.worker, old.session) == (new.worker, new.session) and old.number < new.number
        for one in old.found_accounts
        for other in new.found_accounts
        if one.id == other.id and _posted(one) != _posted(other)
    ]
    old, new, one, other = _pick(chance, pairs)
    for read, shown in ((old, other), (new, one)):
        found = tuple(shown if each.id == shown.id else each for each in read.found_accounts)
        history = history.with_operation(replace(read, found_accounts=found))
    return history


@mutation
def wallet_is_read_overdrawn(history: History, chance: random.Random) -> History:
    read = _pick(
        chance,
        (
            o for o in history.operations
            if any(one.flags & MUST_NOT_OVERDRAW for one in o.found_accounts)
        ),
    )  # fmt: skip
    found = tuple(
        replace(one, debits_posted=one.credits_posted + 1) if one.flags & MUST_NOT_OVERDRAW else one
        for one in read.found_accounts
    )
    return history.with_operation(replace(read, found_accounts=found))


@mutation
def read_misses_a_transfer(history: History, chance: random.Random) -> History:
    read = _pick(
        chance,
        (
            o for o in history.operations
            if o.kind == "lookup_transfers" and o.found_transfers and not o.final
        ),
    )  # fmt: skip
    return history.with_operation(replace(read, found_transfers=read.found_transfers[1:]))


@mutation
def read_misses_an_account(history: History, chance: random.Random) -> History:
    read = _pick(chance, (o for o in history.operations if o.found_accounts))
    return history.with_operation(replace(read, found_accounts=read.found_accounts[1:]))


# -- what happened at the wrong time ---------------------------------------------------------------


@mutation
def timestamps_are_swapped(history: History, chance: random.Random) -> History:
    done = [o for o in _created(history) if len(o.transfers) == 1]
    pairs = [
        (one, other)
        for at, one in enumerate(done)
        for other in done[at + 1 :]
        if (one.completed or 0) < other.invoked
    ]
    one, other = _pick(chance, pairs)
    times = replace(one, timestamp=other.timestamp, timestamps=other.timestamps)
    swapped = history.with_operation(times)
    times = replace(other, timestamp=one.timestamp, timestamps=one.timestamps)
    return swapped.with_operation(times)


@mutation
def timestamp_is_given_twice(history: History, chance: random.Random) -> History:
    done = [o for o in _created(history) if len(o.transfers) == 1]
    one, other = _pick(chance, itertools.permutations(done, 2))
    return history.with_operation(
        replace(one, timestamp=other.timestamp, timestamps=other.timestamps)
    )


@mutation
def read_took_effect_before_it_was_asked(history: History, chance: random.Random) -> History:
    answered = [o for o in history.operations if o.timestamp and not o.final]
    reads = [o for o in answered if o.kind == "lookup_accounts"]
    pairs = [(read, o) for read in reads for o in answered if (o.completed or 0) < read.invoked]
    read, earlier = _pick(chance, pairs)
    return history.with_operation(replace(read, timestamp=earlier.timestamp - 1))


# -- parts -----------------------------------------------------------------------------------------


def _pick(chance: random.Random, places: Iterable[_Place]) -> _Place:
    listed = list(places)
    if not listed:
        raise NoPlaceError
    return chance.choice(listed)


def _created(history: History) -> Iterator[Operation]:
    """Transfers that were all acknowledged as created."""
    return (
        o for o in history.operations
        if o.kind == "create_transfers" and o.statuses and set(o.statuses) == {"created"}
    )  # fmt: skip


def _with_status(history: History, status: str) -> Iterator[Operation]:
    return (o for o in history.operations if status in o.statuses and o.transfers)


def _final(history: History) -> Iterator[Operation]:
    return (o for o in history.operations if o.final)


def _is_chain(operation: Operation) -> bool:
    return bool(operation.transfers and operation.transfers[0].flags & LINKED)


def _posts(one: Transfer) -> bool:
    return one.flags & ~LINKED == 0


def _posted(one: Account) -> tuple[int, int]:
    return one.debits_posted, one.credits_posted


def _forget(history: History, done: Operation) -> History:
    """Without the first transfer of an operation in the final reads."""
    lost = done.transfers[0].id
    for read in _final(history):
        kept = tuple(one for one in read.found_transfers if one.id != lost)
        history = history.with_operation(replace(read, found_transfers=kept))
    return history


def _in_final(
    history: History,
    chance: random.Random,
    change: Callable[[Transfer], Transfer],
    among: Callable[[Transfer], bool] = lambda _: True,
) -> History:
    """With one stored transfer changed in the final reads."""
    stored = (one for o in _final(history) for one in o.found_transfers)
    chosen = _pick(chance, filter(among, stored))
    for read in _final(history):
        found = tuple(change(one) if one.id == chosen.id else one for one in read.found_transfers)
        history = history.with_operation(replace(read, found_transfers=found))
    return history


def _store(history: History, one: Transfer) -> History:
    """With one more transfer in the final reads."""
    for read in _final(history):
        if read.kind == "query_transfers":
            found = tuple(sorted((*read.found_transfers, one), key=lambda each: each.timestamp))
            history = history.with_operation(replace(read, found_transfers=found))
    return history


def _balances(history: History, change: Callable[[Account], Account]) -> History:
    """With changed accounts in the final reads."""
    for read in _final(history):
        found = tuple(map(change, read.found_accounts))
        history = history.with_operation(replace(read, found_accounts=found))
    return history


def _acknowledge(history: History, chance: random.Random, status: str) -> History:
    """With a refused transfer acknowledged, and stored."""
    refused = _pick(
        chance, (o for o in _with_status(history, status) if len(o.transfers) == 1)
    )  # fmt: skip
    history = history.with_operation(replace(refused, statuses=("created",), outcome="ok"))
    return _store(history, replace(refused.transfers[0], timestamp=refused.timestamp))
