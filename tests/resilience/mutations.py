"""Ways to break an honest history, one for each thing that must not happen.

A mutation picks a place at random and returns the broken history; ``NoPlaceError`` where there is
none. Each is wrong wherever it strikes: a ledger that works cannot have said this.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

from loadtests.client.records import MUST_NOT_OVERDRAW, PENDING
from loadtests.run.history import Account, History
from tests.resilience.places import (
    acknowledge,
    balances,
    created,
    exchanged,
    final,
    forget,
    in_final,
    is_chain,
    pick,
    posted,
    posts,
    store,
    with_status,
)

Mutation = Callable[[History, random.Random], History]

MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """Add to the catalogue."""
    MUTATIONS[function.__name__] = function
    return function


# -- what the ledger lost, invented or changed -----------------------------------------------------


@mutation
def acknowledged_transfer_is_lost(history: History, chance: random.Random) -> History:
    return forget(history, pick(chance, created(history)))


@mutation
def one_leg_of_a_chain_is_lost(history: History, chance: random.Random) -> History:
    return forget(history, pick(chance, (o for o in created(history) if is_chain(o))))


@mutation
def stored_amount_is_altered(history: History, chance: random.Random) -> History:
    return in_final(history, chance, lambda one: replace(one, amount=one.amount + 1))


@mutation
def stored_owner_is_altered(history: History, chance: random.Random) -> History:
    return in_final(
        history,
        chance,
        lambda one: replace(
            one, debit_account_id=one.credit_account_id, credit_account_id=one.debit_account_id
        ),
    )


@mutation
def stored_timestamp_is_altered(history: History, chance: random.Random) -> History:
    """Only of what was acknowledged: nobody was told the timestamp of the others."""
    told = {one.id for done in created(history) for one in done.transfers}
    return in_final(
        history,
        chance,
        lambda one: replace(one, timestamp=one.timestamp + 1),
        among=lambda one: one.id in told,
    )


@mutation
def refused_transfer_left_a_trace(history: History, chance: random.Random) -> History:
    refused = pick(chance, with_status(history, "exceeds_credits"))
    return store(history, replace(refused.transfers[-1], timestamp=refused.timestamp))


@mutation
def transfer_nobody_sent_is_stored(history: History, chance: random.Random) -> History:
    done = pick(chance, created(history))
    return store(
        history,
        replace(done.transfers[0], id=done.transfers[0].id + 2**40, timestamp=done.timestamp + 1),
    )


@mutation
def half_of_a_chain_without_answer_is_stored(history: History, chance: random.Random) -> History:
    acknowledged = {one.id for done in created(history) for one in done.transfers}
    answered = {one.id for o in history.operations if o.outcome != "unknown" for one in o.transfers}
    lost = pick(
        chance,
        (
            o
            for o in history.operations
            if o.outcome == "unknown"
            and is_chain(o)
            and not {one.id for one in o.transfers} & (acknowledged | answered)
        ),
    )
    stored = {one.id for o in final(history) for one in o.found_transfers}
    first = lost.transfers[0]
    if first.id in stored:
        return forget(history, lost)
    return store(history, replace(first, timestamp=history.operations[-1].timestamp - 7))


@mutation
def transfer_moved_its_amount_twice(history: History, chance: random.Random) -> History:
    done = pick(chance, (o for o in created(history) if posts(o.transfers[0])))
    moved = done.transfers[0]

    def doubled(one: Account) -> Account:
        return replace(
            one,
            debits_posted=one.debits_posted + moved.amount * (one.id == moved.debit_account_id),
            credits_posted=one.credits_posted + moved.amount * (one.id == moved.credit_account_id),
        )

    return balances(history, doubled)


@mutation
def money_appeared(history: History, chance: random.Random) -> History:
    lucky = pick(chance, (one for o in final(history) for one in o.found_accounts))
    return balances(
        history,
        lambda one: (
            replace(one, credits_posted=one.credits_posted + 1) if one.id == lucky.id else one
        ),
    )


@mutation
def hold_never_ended(history: History, chance: random.Random) -> History:
    held = pick(chance, (o for o in created(history) if o.transfers[0].flags & PENDING))
    hold = held.transfers[0]

    def kept(one: Account) -> Account:
        return replace(
            one,
            debits_pending=hold.amount * (one.id == hold.debit_account_id),
            credits_pending=hold.amount * (one.id == hold.credit_account_id),
        )

    return balances(history, kept)


# -- what was answered wrong -----------------------------------------------------------------------


@mutation
def overdraft_is_acknowledged(history: History, chance: random.Random) -> History:
    return acknowledge(history, chance, "exceeds_credits")


@mutation
def capture_of_nothing_is_acknowledged(history: History, chance: random.Random) -> History:
    return acknowledge(history, chance, "pending_transfer_not_found")


@mutation
def capture_of_an_expired_hold_is_acknowledged(history: History, chance: random.Random) -> History:
    return acknowledge(history, chance, "pending_transfer_expired")


@mutation
def id_is_created_twice(history: History, chance: random.Random) -> History:
    again = pick(chance, (o for o in with_status(history, "exists") if len(o.statuses) == 1))
    return exchanged(history, replace(again, statuses=("created",), timestamps=(again.timestamp,)))


@mutation
def changed_retry_is_told_it_exists(history: History, chance: random.Random) -> History:
    changed = pick(chance, with_status(history, "exists_with_different_amount"))
    return exchanged(history, replace(changed, statuses=("exists",), outcome="ok"))


@mutation
def created_transfer_is_told_refused(history: History, chance: random.Random) -> History:
    done = pick(chance, (o for o in created(history) if len(o.transfers) == 1))
    return exchanged(history, replace(done, statuses=("exceeds_credits",), outcome="rejected"))


@mutation
def refusal_gives_another_reason(history: History, chance: random.Random) -> History:
    refused = pick(chance, (o for o in history.operations if o.outcome == "rejected"))
    return exchanged(
        history,
        replace(
            refused,
            statuses=tuple(
                "credit_account_not_found" if s not in ("created", "exists") else s
                for s in refused.statuses
            ),
        ),
    )


@mutation
def half_a_chain_is_acknowledged(history: History, chance: random.Random) -> History:
    refused = pick(chance, with_status(history, "linked_event_failed"))
    statuses = tuple("created" if s == "linked_event_failed" else s for s in refused.statuses)
    return exchanged(history, replace(refused, statuses=statuses))


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
        if one.id == other.id and posted(one) != posted(other)
    ]
    _, new, one, _ = pick(chance, pairs)
    found = tuple(one if other.id == one.id else other for other in new.found_accounts)
    return exchanged(history, replace(new, found_accounts=found))


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
        if one.id == other.id and posted(one) != posted(other)
    ]
    old, new, one, other = pick(chance, pairs)
    for read, shown in ((old, other), (new, one)):
        found = tuple(shown if each.id == shown.id else each for each in read.found_accounts)
        history = exchanged(history, replace(read, found_accounts=found))
    return history


@mutation
def wallet_is_read_overdrawn(history: History, chance: random.Random) -> History:
    read = pick(
        chance,
        (
            o
            for o in history.operations
            if any(one.flags & MUST_NOT_OVERDRAW for one in o.found_accounts)
        ),
    )
    found = tuple(
        replace(one, debits_posted=one.credits_posted + 1) if one.flags & MUST_NOT_OVERDRAW else one
        for one in read.found_accounts
    )
    return exchanged(history, replace(read, found_accounts=found))


@mutation
def read_misses_a_transfer(history: History, chance: random.Random) -> History:
    read = pick(
        chance,
        (
            o
            for o in history.operations
            if o.kind == "lookup_transfers" and o.found_transfers and not o.final
        ),
    )
    return exchanged(history, replace(read, found_transfers=read.found_transfers[1:]))


@mutation
def read_misses_an_account(history: History, chance: random.Random) -> History:
    read = pick(chance, (o for o in history.operations if o.found_accounts))
    return exchanged(history, replace(read, found_accounts=read.found_accounts[1:]))


# -- what happened at the wrong time ---------------------------------------------------------------


@mutation
def timestamps_are_swapped(history: History, chance: random.Random) -> History:
    done = [o for o in created(history) if len(o.transfers) == 1]
    pairs = [
        (one, other)
        for at, one in enumerate(done)
        for other in done[at + 1 :]
        if (one.completed or 0) < other.invoked
    ]
    one, other = pick(chance, pairs)
    times = replace(one, timestamp=other.timestamp, timestamps=other.timestamps)
    swapped = exchanged(history, times)
    times = replace(other, timestamp=one.timestamp, timestamps=one.timestamps)
    return exchanged(swapped, times)


@mutation
def timestamp_is_given_twice(history: History, chance: random.Random) -> History:
    done = [o for o in created(history) if len(o.transfers) == 1]
    one, other = pick(chance, itertools.permutations(done, 2))
    return exchanged(history, replace(one, timestamp=other.timestamp, timestamps=other.timestamps))


@mutation
def read_took_effect_before_it_was_asked(history: History, chance: random.Random) -> History:
    answered = [o for o in history.operations if o.timestamp and not o.final]
    reads = [o for o in answered if o.kind == "lookup_accounts"]
    pairs = [(read, o) for read in reads for o in answered if (o.completed or 0) < read.invoked]
    read, earlier = pick(chance, pairs)
    return exchanged(history, replace(read, timestamp=earlier.timestamp - 1))
