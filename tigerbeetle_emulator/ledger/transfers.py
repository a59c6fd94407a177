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
from ..protocol.status import CREATED, first
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
    at_once = not flags & transfer_flags.PENDING
    return first(
        (debit_id == ID_ZERO, Status.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO),
        (debit_id == ID_MAX, Status.DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX),
        (credit_id == ID_ZERO, Status.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO),
        (credit_id == ID_MAX, Status.CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX),
        (debit_id == credit_id, Status.ACCOUNTS_MUST_BE_DIFFERENT),
        (pending_id != ID_ZERO, Status.PENDING_ID_MUST_BE_ZERO),
        (at_once and timeout, Status.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER),
        (at_once and flags & transfer_flags.CLOSING, Status.CLOSING_TRANSFER_MUST_BE_PENDING),
        (not ledger_id, Status.LEDGER_MUST_NOT_BE_ZERO),
        (not code, Status.CODE_MUST_NOT_BE_ZERO),
    )


def _check_imported(ledger: Ledger, event: TransferRow, debit: Account, credit: Account) -> int:
    """The status of a past timestamp out of order, or 0."""
    given = event[13]
    before_debit, before_credit = given <= debit.timestamp, given <= credit.timestamp
    return first(
        (ledger.transfer_regresses(given), Status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS),
        (before_debit, Status.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT),
        (before_credit, Status.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT),
        (event[9], Status.IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO),
    )


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
    held = amount if flags & transfer_flags.PENDING else 0
    debits_posted, credits_posted = debit.debits_posted + amount, credit.credits_posted + amount
    debits, credits = debits_posted + debit.debits_pending, credits_posted + credit.credits_pending
    debits_limited = debit.flags & account_flags.DEBITS_MUST_NOT_EXCEED_CREDITS
    credits_limited = credit.flags & account_flags.CREDITS_MUST_NOT_EXCEED_DEBITS
    return first(
        (debit.debits_pending + held > U128_MAX, Status.OVERFLOWS_DEBITS_PENDING),
        (credit.credits_pending + held > U128_MAX, Status.OVERFLOWS_CREDITS_PENDING),
        (debits_posted > U128_MAX, Status.OVERFLOWS_DEBITS_POSTED),
        (credits_posted > U128_MAX, Status.OVERFLOWS_CREDITS_POSTED),
        (debits > U128_MAX, Status.OVERFLOWS_DEBITS),
        (credits > U128_MAX, Status.OVERFLOWS_CREDITS),
        (timestamp + timeout * NANOSECONDS > TIMESTAMP_MAX, Status.OVERFLOWS_TIMEOUT),
        (debits_limited and debits > debit.credits_posted, Status.EXCEEDS_CREDITS),
        (credits_limited and credits > credit.debits_posted, Status.EXCEEDS_DEBITS),
    )


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
