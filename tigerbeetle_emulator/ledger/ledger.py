"""The ledger: accounts, transfers, and all state that a failed chain must undo together.

A pure state machine: no clock, no I/O. `execute` takes an operation, a valid body and the
timestamp the operation was given, and returns the reply body; the same calls in the same order
always build the same ledger, which is what makes the journal a complete backup of it.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from operator import attrgetter
from typing import NamedTuple

from ..protocol import account_flags, multibatch, transfer_flags
from ..protocol.aegis import Buffer
from ..protocol.operations import Operation, batches_of, timestamps_needed
from ..protocol.records import (
    EXPIRED,
    FAILED,
    ID_MAX,
    ID_ZERO,
    NANOSECONDS,
    PENDING,
    RECORD_SIZE,
    TRANSFER,
    Account,
    Balances,
    TransferRow,
    balances_of,
)
from . import creates, queries
from .history import History, Moment
from .steps import Steps, finish

EXPIRED_PER_PULSE = 8190
_timestamp_of = attrgetter("timestamp")


class Scope(NamedTuple):
    """What was there before a linked chain, so that it can be undone."""

    rows: int
    accounts: int
    balances: list[tuple[Account, Balances]]


class Ledger:
    """All state of the state machine.

    `records` holds the 128 bytes of each created transfer, one behind the other, in the order of
    creation, which is also the order of timestamps; `timestamps` runs beside it. A *row* is the
    number of a transfer in both.
    """

    def __init__(self) -> None:
        self.accounts: dict[bytes, Account] = {}
        self.account_order: list[Account] = []  # ascending timestamps
        self.records = bytearray()
        self.timestamps: array[int] = array("Q")
        # The two ids that can never be created are marked here, which saves the hot path a test.
        self.transfers: dict[bytes, int] = {ID_ZERO: FAILED, ID_MAX: FAILED}
        self.pending: dict[int, int] = {}  # row of a pending transfer -> PENDING .. EXPIRED
        self.expiries: list[tuple[int, int, int]] = []  # heap of (expires_at, timestamp, row)
        self.expired: list[tuple[int, int, int]] = []  # (rows before it, timestamp, row)
        self.scope: Scope | None = None
        self.history = History(self)

    # -- executing -----------------------------------------------------------------------------

    def execute(self, operation: Operation, body: Buffer, timestamp: int) -> bytes:
        """Run one operation. `body` must be valid for it; `timestamp` is its highest one."""
        return finish(self.begin(operation, body, timestamp))

    def begin(self, operation: Operation, body: Buffer, timestamp: int) -> Steps[bytes]:
        """Run one operation in steps, between which others may run whole; a query may need many.

        Whatever changes or depends on what the next one may change is done in the first step.
        """
        batches = batches_of(operation, body)
        last = timestamp - timestamps_needed(operation, body)
        now = Moment(len(self.timestamps), len(self.expired))
        results = []
        for batch in batches:
            if operation.kind in creates.RULES:
                last += len(batch) // operation.event_size
                results.append(creates.create(self, operation, batch, last))
            elif operation.kind in queries.AT_ONCE:
                answer = queries.AT_ONCE[operation.kind]
                results.append(answer(self, batch, operation.result_max))
            else:
                query = queries.IN_STEPS[operation.kind]
                results.append((yield from query(self, batch, operation.result_max, now)))
        if operation.multi_batch:
            return multibatch.encode(results, operation.result_size)
        return results[0]

    def expire(self, timestamp: int) -> int:
        """Expire pending transfers whose timeout has passed; returns how many.

        The k-th of m gets the event timestamp `timestamp` - m + k.
        """
        due: list[int] = []
        while len(due) < EXPIRED_PER_PULSE:
            expires_at = self.next_expiry()
            if expires_at is None or expires_at > timestamp:
                break
            due.append(heapq.heappop(self.expiries)[2])
        for moment, row in enumerate(due, timestamp - len(due) + 1):
            event = self.transfer(row)
            self.release_pending(event, self.accounts[event[1]], self.accounts[event[2]])
            self.pending[row] = EXPIRED
            self.expired.append((len(self.timestamps), moment, row))
        return len(due)

    def next_expiry(self) -> int | None:
        """When the next pending transfer times out, or None."""
        while self.expiries:
            expires_at, timestamp, row = self.expiries[0]
            is_same = row < len(self.timestamps) and self.timestamps[row] == timestamp
            if is_same and self.pending.get(row) == PENDING:
                return expires_at
            heapq.heappop(self.expiries)  # posted, voided or undone meanwhile
        return None

    # -- reading -------------------------------------------------------------------------------

    def find_transfer(self, transfer_id: bytes) -> int | None:
        """The row of a transfer, or None for an unknown or failed id."""
        row = self.transfers.get(transfer_id, FAILED)
        return None if row == FAILED else row

    def transfer(self, row: int) -> TransferRow:
        """The fields of a stored transfer, except that its timestamp is in `timestamps`."""
        fields: TransferRow = TRANSFER.unpack_from(self.records, row * RECORD_SIZE)
        return fields

    def record(self, row: int) -> bytes:
        """A stored transfer as the record a client reads."""
        start = row * RECORD_SIZE
        moment = self.timestamps[row].to_bytes(8, "little")
        return bytes(self.records[start : start + RECORD_SIZE - 8]) + moment

    def transfer_at(self, timestamp: int) -> bool:
        """Whether some transfer has this timestamp."""
        row = bisect_left(self.timestamps, timestamp)
        return row < len(self.timestamps) and self.timestamps[row] == timestamp

    def transfer_regresses(self, timestamp: int) -> bool:
        """Whether an imported transfer's time is taken, or is not after the newest one."""
        newest = self.timestamps[-1] if self.timestamps else 0
        return timestamp <= newest or self.account_at(timestamp)

    def account_at(self, timestamp: int) -> bool:
        """Whether some account has this timestamp."""
        order = self.account_order
        position = bisect_left(order, timestamp, key=_timestamp_of)
        return position < len(order) and order[position].timestamp == timestamp

    # -- changing ------------------------------------------------------------------------------

    def add_account(self, account: Account) -> None:
        """Store a new account."""
        self.accounts[account.id] = account
        self.account_order.append(account)

    def add_transfer(self, transfer_id: bytes, record: bytes, timestamp: int) -> int:
        """Store a new transfer and return its row."""
        row = len(self.timestamps)
        self.transfers[transfer_id] = row
        self.records += record
        self.timestamps.append(timestamp)
        return row

    def add_pending(self, row: int, timestamp: int, timeout: int) -> None:
        """Remember that the transfer in `row` awaits post, void or (timeout in s) expiry."""
        self.pending[row] = PENDING
        if timeout:
            expires_at = timestamp + timeout * NANOSECONDS
            heapq.heappush(self.expiries, (expires_at, timestamp, row))

    def touch(self, debit: Account, credit: Account) -> None:
        """Announce that the balances of two accounts are about to change."""
        if self.scope:
            self.scope.balances.append((debit, balances_of(debit)))
            self.scope.balances.append((credit, balances_of(credit)))

    def release_pending(self, event: TransferRow, debit: Account, credit: Account) -> None:
        """Take a pending transfer's amount and its closing of accounts back (void, expiry)."""
        amount, flags = event[3] | event[4] << 64, event[12]
        debit.debits_pending -= amount
        credit.credits_pending -= amount
        if flags & transfer_flags.CLOSING_DEBIT:
            debit.flags &= ~account_flags.CLOSED
        if flags & transfer_flags.CLOSING_CREDIT:
            credit.flags &= ~account_flags.CLOSED
        debit.classify()
        credit.classify()

    def open_scope(self) -> None:
        """Begin a linked chain."""
        self.scope = Scope(len(self.timestamps), len(self.account_order), [])

    def discard_scope(self) -> None:
        """Undo everything since `open_scope`."""
        scope, self.scope = self.scope, None
        if scope is None:
            return
        for account, balances in reversed(scope.balances):
            account.restore(balances)
        for row in reversed(range(scope.rows, len(self.timestamps))):
            event = self.transfer(row)
            del self.transfers[event[0]]
            self.pending.pop(row, None)
            if event[12] & transfer_flags.RESOLVING:
                self.pending[self.transfers[event[5]]] = PENDING
        del self.records[scope.rows * RECORD_SIZE :], self.timestamps[scope.rows :]
        for account in self.account_order[scope.accounts :]:
            del self.accounts[account.id]
        del self.account_order[scope.accounts :]
