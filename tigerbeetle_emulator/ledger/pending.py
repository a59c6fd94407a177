"""Posting and voiding a pending transfer, in the genuine order of precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import account_flags, transfer_flags
from ..protocol.records import (
    EXPIRED,
    ID_MAX,
    ID_ZERO,
    NANOSECONDS,
    POSTED,
    TRANSFER,
    U64_MAX,
    U128_MAX,
    VOIDED,
    TransferRow,
)
from ..protocol.status import CREATED, first
from ..protocol.status import CreateTransferStatus as Status

if TYPE_CHECKING:
    from .ledger import Ledger

_EXCLUDED = transfer_flags.PENDING | transfer_flags.BALANCING | transfer_flags.CLOSING
_RESOLVED = {
    POSTED: Status.PENDING_TRANSFER_ALREADY_POSTED,
    VOIDED: Status.PENDING_TRANSFER_ALREADY_VOIDED,
    EXPIRED: Status.PENDING_TRANSFER_EXPIRED,
}


def resolve(ledger: Ledger, event: TransferRow, timestamp: int) -> int:
    """Post or void a pending transfer; returns CREATED or the first status against it."""
    status = _check_fields(event)
    if status:
        return status
    row = ledger.find_transfer(event[5])
    if row is None:
        return Status.PENDING_TRANSFER_NOT_FOUND
    held = ledger.transfer(row)
    if not held[12] & transfer_flags.PENDING:
        return Status.PENDING_TRANSFER_NOT_PENDING
    amount = resolved_amount(event, held)
    status = _check_against(event, held, amount) or _check_state(ledger, row, held, timestamp)
    if status:
        return status
    if event[12] & transfer_flags.IMPORTED:
        if ledger.transfer_regresses(event[13]):
            return Status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
        timestamp = event[13]
    debit, credit = ledger.accounts[held[1]], ledger.accounts[held[2]]
    if event[12] & transfer_flags.POST:
        if debit.flags & account_flags.CLOSED:
            return Status.DEBIT_ACCOUNT_ALREADY_CLOSED
        if credit.flags & account_flags.CLOSED:
            return Status.CREDIT_ACCOUNT_ALREADY_CLOSED
    record = TRANSFER.pack(*resolution(event, held, amount))
    ledger.add_transfer(event[0], record, timestamp)
    ledger.touch(debit, credit)
    ledger.release_pending(held, debit, credit)
    if event[12] & transfer_flags.POST:
        ledger.pending[row] = POSTED
        debit.debits_posted += amount
        credit.credits_posted += amount
    else:
        ledger.pending[row] = VOIDED
    return CREATED


def resolved_amount(event: TransferRow, held: TransferRow) -> int:
    """The amount a post or void asks for: 0 voids it all, 2^128-1 posts it all."""
    amount = event[3] | event[4] << 64
    everything = U128_MAX if event[12] & transfer_flags.POST else 0
    return held[3] | held[4] << 64 if amount == everything else amount


def _check_fields(event: TransferRow) -> int:
    """The first status that the fields alone cause, or 0."""
    transfer_id, pending_id, flags = event[0], event[5], event[12]
    both = flags & transfer_flags.RESOLVING == transfer_flags.RESOLVING
    return first(
        (both or flags & _EXCLUDED, Status.FLAGS_ARE_MUTUALLY_EXCLUSIVE),
        (pending_id == ID_ZERO, Status.PENDING_ID_MUST_NOT_BE_ZERO),
        (pending_id == ID_MAX, Status.PENDING_ID_MUST_NOT_BE_INT_MAX),
        (pending_id == transfer_id, Status.PENDING_ID_MUST_BE_DIFFERENT),
        (event[9], Status.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER),
    )


def _check_against(event: TransferRow, held: TransferRow, amount: int) -> int:
    """The status of fields that contradict the pending transfer's, or 0."""
    debit, credit = (ID_ZERO, held[1]), (ID_ZERO, held[2])
    all_held, is_void = held[3] | held[4] << 64, event[12] & transfer_flags.VOID
    return first(
        (event[1] not in debit, Status.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID),
        (event[2] not in credit, Status.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID),
        (event[10] not in (0, held[10]), Status.PENDING_TRANSFER_HAS_DIFFERENT_LEDGER),
        (event[11] not in (0, held[11]), Status.PENDING_TRANSFER_HAS_DIFFERENT_CODE),
        (amount > all_held, Status.EXCEEDS_PENDING_TRANSFER_AMOUNT),
        (is_void and amount < all_held, Status.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT),
    )


def _check_state(ledger: Ledger, row: int, held: TransferRow, timestamp: int) -> int:
    """The status of a pending transfer that is no longer pending at `timestamp`, or 0."""
    status = _RESOLVED.get(ledger.pending[row])
    if status:
        return status
    timeout = held[9] * NANOSECONDS
    if timeout and ledger.timestamps[row] + timeout <= timestamp:
        return Status.PENDING_TRANSFER_EXPIRED  # even if the expiry has not been carried out
    return 0


def resolution(event: TransferRow, held: TransferRow, amount: int) -> TransferRow:
    """What a post or void stores: where it has zeroes, the fields of the pending transfer."""
    return (
        event[0],
        event[1] if event[1] != ID_ZERO else held[1],
        event[2] if event[2] != ID_ZERO else held[2],
        amount & U64_MAX,
        amount >> 64,
        event[5],
        event[6] if event[6] != ID_ZERO else held[6],
        event[7] or held[7],
        event[8] or held[8],
        event[9],
        event[10] or held[10],
        event[11] or held[11],
        event[12],
        event[13],
    )
