"""Create one transfer, or say why not: statuses in the genuine order of precedence.

`pending` posts and voids pending transfers, and `duplicates` handles ids that are taken. `plain`
creates ordinary transfers; they get here only when something is unusual about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import account_flags, transfer_flags
from ..protocol.records import (
    FAILED,
    ID_MAX,
    ID_ZERO,
    NANOSECONDS,
    TIMESTAMP_MAX,
    U128_MAX,
    Account,
    TransferRow,
)
from ..protocol.status import CREATED
from ..protocol.status import CreateTransferStatus as Status
from . import duplicates, pending

if TYPE_CHECKING:
    from .ledger import Ledger


def create(ledger: Ledger, event: TransferRow, record: bytes, timestamp: int) -> int:
    """Create one transfer; returns CREATED, or the first status that forbids it."""
    transfer_id, flags = event[0], event[12]
    if flags & ~transfer_flags.KNOWN:
        return Status.RESERVED_FLAG
    if transfer_id == ID_ZERO:
        return Status.ID_MUST_NOT_BE_ZERO
    if transfer_id == ID_MAX:
        return Status.ID_MUST_NOT_BE_INT_MAX
    row = ledger.transfers.get(transfer_id)
    if row is not None:
        return Status.ID_ALREADY_FAILED if row == FAILED else duplicates.compare(ledger, event, row)
    if flags & transfer_flags.RESOLVING:
        return pending.resolve(ledger, event, timestamp)
    status = _check_fields(event)
    if status:
        return status
    debit, credit = ledger.accounts.get(event[1]), ledger.accounts.get(event[2])
    if debit is None:
        return Status.DEBIT_ACCOUNT_NOT_FOUND
    if credit is None:
        return Status.CREDIT_ACCOUNT_NOT_FOUND
    if debit.ledger != credit.ledger:
        return Status.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
    if event[10] != debit.ledger:
        return Status.TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS
    if flags & transfer_flags.IMPORTED:
        status = _check_imported(ledger, event, debit, credit)
        if status:
            return status
        timestamp = event[13]
    if debit.flags & account_flags.CLOSED:
        return Status.DEBIT_ACCOUNT_ALREADY_CLOSED
    if credit.flags & account_flags.CLOSED:
        return Status.CREDIT_ACCOUNT_ALREADY_CLOSED
    requested = event[3] | event[4] << 64
    amount = balanced_amount(requested, flags, debit, credit)
    status = _check_amount(amount, flags, event[9], timestamp, debit, credit)
    if status:
        return status
    if amount != requested:
        record = record[:48] + amount.to_bytes(16, "little") + record[64:]
    _apply(ledger, event, record, amount, timestamp, debit, credit)
    return CREATED


def _check_fields(event: TransferRow) -> int:
    """The first status that the fields alone cause, or 0."""
    _, debit_id, credit_id, _, _, pending_id, _, _, _, timeout, ledger_id, code, flags, _ = event
    if debit_id == ID_ZERO:
        return Status.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if debit_id == ID_MAX:
        return Status.DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX
    if credit_id == ID_ZERO:
        return Status.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if credit_id == ID_MAX:
        return Status.CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX
    if debit_id == credit_id:
        return Status.ACCOUNTS_MUST_BE_DIFFERENT
    if pending_id != ID_ZERO:
        return Status.PENDING_ID_MUST_BE_ZERO
    if not flags & transfer_flags.PENDING:
        if timeout:
            return Status.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        if flags & transfer_flags.CLOSING:
            return Status.CLOSING_TRANSFER_MUST_BE_PENDING
    if not ledger_id:
        return Status.LEDGER_MUST_NOT_BE_ZERO
    if not code:
        return Status.CODE_MUST_NOT_BE_ZERO
    return 0


def _check_imported(ledger: Ledger, event: TransferRow, debit: Account, credit: Account) -> int:
    """The status of a past timestamp out of order, or 0."""
    given = event[13]
    if ledger.transfer_regresses(given):
        return Status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
    if given <= debit.timestamp:
        return Status.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT
    if given <= credit.timestamp:
        return Status.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT
    return Status.IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO if event[9] else 0


def balanced_amount(amount: int, flags: int, debit: Account, credit: Account) -> int:
    """The amount actually moved: a balancing transfer takes at most what is there."""
    if flags & transfer_flags.BALANCING_DEBIT:
        available = debit.credits_posted - debit.debits_posted - debit.debits_pending
        amount = min(amount, max(0, available))
    if flags & transfer_flags.BALANCING_CREDIT:
        available = credit.debits_posted - credit.credits_posted - credit.credits_pending
        amount = min(amount, max(0, available))
    return amount


def _check_amount(
    amount: int, flags: int, timeout: int, timestamp: int, debit: Account, credit: Account
) -> int:
    """The status of an amount too large for the balances or their limits, or 0."""
    if flags & transfer_flags.PENDING:
        if debit.debits_pending + amount > U128_MAX:
            return Status.OVERFLOWS_DEBITS_PENDING
        if credit.credits_pending + amount > U128_MAX:
            return Status.OVERFLOWS_CREDITS_PENDING
    debits = debit.debits_posted + amount
    credits = credit.credits_posted + amount
    if debits > U128_MAX:
        return Status.OVERFLOWS_DEBITS_POSTED
    if credits > U128_MAX:
        return Status.OVERFLOWS_CREDITS_POSTED
    debits += debit.debits_pending
    credits += credit.credits_pending
    if debits > U128_MAX:
        return Status.OVERFLOWS_DEBITS
    if credits > U128_MAX:
        return Status.OVERFLOWS_CREDITS
    if timestamp + timeout * NANOSECONDS > TIMESTAMP_MAX:
        return Status.OVERFLOWS_TIMEOUT
    if debit.flags & account_flags.DEBITS_MUST_NOT_EXCEED_CREDITS and debits > debit.credits_posted:
        return Status.EXCEEDS_CREDITS
    if (
        credit.flags & account_flags.CREDITS_MUST_NOT_EXCEED_DEBITS
        and credits > credit.debits_posted
    ):
        return Status.EXCEEDS_DEBITS
    return 0


def _apply(
    ledger: Ledger,
    event: TransferRow,
    record: bytes,
    amount: int,
    timestamp: int,
    debit: Account,
    credit: Account,
) -> None:
    """Store a transfer that no rule forbids, and move its amount."""
    flags = event[12]
    row = ledger.add_transfer(event[0], record, timestamp)
    ledger.touch(debit, credit)
    if flags & transfer_flags.PENDING:
        ledger.add_pending(row, timestamp, event[9])
        debit.debits_pending += amount
        credit.credits_pending += amount
        if flags & transfer_flags.CLOSING_DEBIT:
            debit.flags |= account_flags.CLOSED
        if flags & transfer_flags.CLOSING_CREDIT:
            credit.flags |= account_flags.CLOSED
        debit.classify()
        credit.classify()
    else:
        debit.debits_posted += amount
        credit.credits_posted += amount
