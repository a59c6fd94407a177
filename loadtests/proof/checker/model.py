"""A small single-threaded model of the ledger: what TigerBeetle answers to a wallet service.

Written from TigerBeetle's reference (statuses in their order of precedence), not from any server's
code. It knows what the recorded workload sends: ordinary, linked and pending transfers, posts and
voids, accounts whose debits must not exceed credits. Other flags raise ``OutsideModelError``.

One thing no client can know: when the cluster executed an expiry. The pending amounts of an account
may still include a hold that is *due*, or not. Expiries are executed in order, so only their number
is unknown. ``Expiries`` keeps a lower bound of it, and every answer may raise that bound.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace

from loadtests.run.history import CREATED, EXISTS, Account, Transfer

LINKED, PENDING, POST, VOID = 1, 2, 4, 8
_KNOWN_FLAGS = LINKED | PENDING | POST | VOID
DEBITS_MUST_NOT_EXCEED_CREDITS = 2
_KNOWN_ACCOUNT_FLAGS = DEBITS_MUST_NOT_EXCEED_CREDITS | 8  # history changes no answer here
AMOUNT_MAX = 2**128 - 1
NANOSECONDS = 1_000_000_000

#: After these the id is spent: another attempt is told ``id_already_failed``.
TRANSIENT = frozenset(
    {
        "debit_account_not_found",
        "credit_account_not_found",
        "pending_transfer_not_found",
        "exceeds_credits",
        "exceeds_debits",
    }
)
ALREADY_FAILED = "id_already_failed"
EXCEEDS_CREDITS = "exceeds_credits"
_COMPARED = (
    "debit_account_id",
    "credit_account_id",
    "amount",
    "user_data_128",
    "user_data_64",
    "user_data_32",
    "ledger",
    "code",
)


class OutsideModelError(ValueError):
    """The history holds something that this model does not know how to judge."""


@dataclass(slots=True)
class Balance:
    """One account's amounts."""

    account: Account
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """A pending transfer with a timeout, as expiries are ordered."""

    expires: int
    created: int
    id: int


@dataclass
class Expiries:
    """Holds that will expire, and those that are due: expired, but perhaps not yet released."""

    waiting: list[Hold] = field(default_factory=list)
    due: list[Hold] = field(default_factory=list)

    def add(self, hold: Hold) -> None:
        """Take in a new hold."""
        insort(self.waiting, hold)

    def remove(self, hold: Hold) -> None:
        """Forget a hold that was posted, voided or undone."""
        del self.waiting[bisect_left(self.waiting, hold)]

    def advance(self, now: int) -> None:
        """Move what has timed out by ``now`` to ``due``."""
        count = 0
        while count < len(self.waiting) and self.waiting[count].expires <= now:
            count += 1
        self.due += self.waiting[:count]
        del self.waiting[:count]


class Model:
    """Accounts and transfers, changed one event at a time, in the order of the cluster's clock."""

    def __init__(self) -> None:
        self.balances: dict[int, Balance] = {}
        self.transfers: dict[int, Transfer] = {}
        self.failed: set[int] = set()
        #: Ids that an attempt without an answer may have spent: see ``id_already_failed``.
        self.doubtful: set[int] = set()
        self.settled: dict[int, str] = {}  # hold id -> posted or voided
        self.expiries = Expiries()

    # -- accounts ------------------------------------------------------------------------------

    def create_account(self, account: Account, timestamp: int) -> str:
        """Create one; its status."""
        if account.flags & ~_KNOWN_ACCOUNT_FLAGS:
            raise OutsideModelError(f"account {account.id:#x} has flags {account.flags:#x}")
        if account.id in self.balances:
            return EXISTS
        self.balances[account.id] = Balance(replace(account, timestamp=timestamp))
        return CREATED

    # -- transfers -----------------------------------------------------------------------------

    def create_transfers(
        self, events: tuple[Transfer, ...], timestamp: int, observed: tuple[str, ...]
    ) -> list[str]:
        """Execute a batch whose last event has ``timestamp``; one status for each event.

        ``observed``, the cluster's answer, decides whether a due hold had been released before.
        """
        self.expiries.advance(timestamp)
        statuses: list[str] = []
        chain: list[Transfer] = []  # created members of the open chain
        begun: int | None = None
        is_broken = False
        for index, event in enumerate(events):
            linked = bool(event.flags & LINKED)
            if linked and begun is None:
                begun, chain, is_broken = index, [], False
            at = timestamp - len(events) + 1 + index
            if linked and index == len(events) - 1:
                status = "linked_event_chain_open"
            elif is_broken:
                status = "linked_event_failed"
            else:
                status = self._create(event, at, observed[index] if observed else "")
            statuses.append(status)
            if status == CREATED and begun is not None:
                chain.append(event)
            if status != CREATED and not is_broken and begun is not None:
                is_broken = True
                statuses[begun:index] = ["linked_event_failed"] * (index - begun)
                for member in reversed(chain):
                    self._undo(member.id)
            if status in TRANSIENT:
                self.failed.add(event.id)
            if not linked or status == "linked_event_chain_open":
                begun, is_broken = None, False
        return statuses

    def _create(self, event: Transfer, timestamp: int, observed: str) -> str:
        if event.flags & ~_KNOWN_FLAGS:
            raise OutsideModelError(f"transfer {event.id:#x} has flags {event.flags:#x}")
        if observed == ALREADY_FAILED and (
            event.id in self.doubtful and event.id not in self.transfers
        ):
            self.failed.add(event.id)
        if event.id in self.failed:
            return ALREADY_FAILED
        if event.id in self.transfers:
            return self._compare(event, self.transfers[event.id])
        if event.flags & (POST | VOID):
            return self._settle(event, timestamp)
        if event.timeout and not event.flags & PENDING:
            return "timeout_reserved_for_pending_transfer"
        debit = self.balances.get(event.debit_account_id)
        credit = self.balances.get(event.credit_account_id)
        if debit is None:
            return "debit_account_not_found"
        if credit is None:
            return "credit_account_not_found"
        if debit.account.ledger != credit.account.ledger:
            return "accounts_must_have_the_same_ledger"
        if event.ledger != debit.account.ledger:
            return "transfer_must_have_the_same_ledger_as_accounts"
        if debit.account.flags & DEBITS_MUST_NOT_EXCEED_CREDITS and not self._affords(
            debit, event.amount, observed
        ):
            return EXCEEDS_CREDITS
        self.transfers[event.id] = replace(event, timestamp=timestamp)
        if event.flags & PENDING:
            debit.debits_pending += event.amount
            credit.credits_pending += event.amount
            if event.timeout:
                self.expiries.add(_hold(self.transfers[event.id]))
        else:
            debit.debits_posted += event.amount
            credit.credits_posted += event.amount
        return CREATED

    def _affords(self, debit: Balance, amount: int, observed: str) -> bool:
        """Whether the account has so much; if that depends on due holds, as was observed."""
        free = debit.credits_posted - debit.debits_posted - debit.debits_pending
        if free >= amount:
            return True
        for released, hold in enumerate(self.expiries.due, 1):
            held = self.transfers[hold.id]
            if held.debit_account_id == debit.account.id:
                free += held.amount
            if free >= amount:
                if observed != EXCEEDS_CREDITS:
                    self.release(released)
                    return True
                return False
        return False

    def _settle(self, event: Transfer, timestamp: int) -> str:
        """Post or void a hold."""
        held = self.transfers.get(event.pending_id)
        if held is None:
            return "pending_transfer_not_found"
        if not held.flags & PENDING:
            return "pending_transfer_not_pending"
        amount = _settled_amount(event, held)
        for name in ("debit_account_id", "credit_account_id", "ledger", "code"):
            if getattr(event, name) not in (0, getattr(held, name)):
                return f"pending_transfer_has_different_{name}"
        if amount > held.amount:
            return "exceeds_pending_transfer_amount"
        if event.flags & VOID and amount < held.amount:
            return "pending_transfer_has_different_amount"
        if held.id in self.settled:
            return f"pending_transfer_already_{self.settled[held.id]}"
        if held.timeout and _hold(held).expires <= timestamp:
            return "pending_transfer_expired"
        stored = replace(_settlement(event, held, amount), timestamp=timestamp)
        self.transfers[event.id] = stored
        self._release(held)
        if held.timeout:
            self.expiries.remove(_hold(held))
        self.settled[held.id] = "posted" if event.flags & POST else "voided"
        if event.flags & POST:
            self.balances[held.debit_account_id].debits_posted += amount
            self.balances[held.credit_account_id].credits_posted += amount
        return CREATED

    def _compare(self, event: Transfer, stored: Transfer) -> str:
        """The status of an id that is taken: the same transfer again, or what differs first."""
        for name in ("flags", "pending_id", "timeout"):
            if getattr(event, name) != getattr(stored, name):
                return f"exists_with_different_{name}"
        if event.flags & (POST | VOID):
            held = self.transfers[event.pending_id]
            event = _settlement(event, held, _settled_amount(event, held))
        for name in _COMPARED:
            if getattr(event, name) != getattr(stored, name):
                return f"exists_with_different_{name}"
        return EXISTS

    def _release(self, held: Transfer, sign: int = -1) -> None:
        self.balances[held.debit_account_id].debits_pending += sign * held.amount
        self.balances[held.credit_account_id].credits_pending += sign * held.amount

    def _undo(self, transfer_id: int) -> None:
        """Take back a created member of a chain that failed later."""
        stored = self.transfers.pop(transfer_id)
        if stored.flags & (POST | VOID):
            held = self.transfers[stored.pending_id]
            del self.settled[held.id]
            self._release(held, +1)
            if held.timeout:
                self.expiries.add(_hold(held))
            if stored.flags & VOID:
                return
        elif stored.flags & PENDING:
            self._release(stored)
            if stored.timeout:
                self.expiries.remove(_hold(stored))
            return
        self.balances[stored.debit_account_id].debits_posted -= stored.amount
        self.balances[stored.credit_account_id].credits_posted -= stored.amount

    # -- expiries ------------------------------------------------------------------------------

    def release(self, count: int) -> None:
        """An answer has shown that the first ``count`` due holds were released by then."""
        for hold in self.expiries.due[:count]:
            self._release(self.transfers[hold.id])
        del self.expiries.due[:count]

    def pending_after(self, balance: Balance) -> list[tuple[int, int]]:
        """(debits_pending, credits_pending) after 0, 1, 2 ... of the due holds are released."""
        debits, credited = balance.debits_pending, balance.credits_pending
        steps = [(debits, credited)]
        for hold in self.expiries.due:
            held = self.transfers[hold.id]
            debits -= held.amount * (held.debit_account_id == balance.account.id)
            credited -= held.amount * (held.credit_account_id == balance.account.id)
            steps.append((debits, credited))
        return steps


def _hold(stored: Transfer) -> Hold:
    expires = stored.timestamp + stored.timeout * NANOSECONDS
    return Hold(expires, stored.timestamp, stored.id)


def _settled_amount(event: Transfer, held: Transfer) -> int:
    """2^128-1 posts all of a hold, 0 voids all of it."""
    everything = AMOUNT_MAX if event.flags & POST else 0
    return held.amount if event.amount == everything else event.amount


def _settlement(event: Transfer, held: Transfer, amount: int) -> Transfer:
    """What a post or void stores: the hold's own fields where it gives none."""
    own = {name: getattr(event, name) or getattr(held, name) for name in _COMPARED}
    return replace(event, **(own | {"amount": amount, "timeout": 0}))
