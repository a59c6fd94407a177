"""Create one account, or say why not: statuses in the genuine order of precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.records import (
    ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS,
    ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS,
    ACCOUNT_FLAGS_KNOWN,
    ACCOUNT_IMPORTED,
    ID_MAX,
    ID_ZERO,
    Account,
    AccountRow,
)
from ..protocol.status import CREATED
from ..protocol.status import CreateAccountStatus as Status

if TYPE_CHECKING:
    from .ledger import Ledger

_BOTH_LIMITS = ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS | ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS


def stored_timestamp(ledger: Ledger, account_id: bytes) -> int:
    """When the existing account `account_id` was created."""
    return ledger.accounts[account_id].timestamp


def create(ledger: Ledger, event: AccountRow, record: bytes, timestamp: int) -> int:
    """Create one account; returns CREATED, or the first status that forbids it."""
    account_id, flags, given = event[0], event[15], event[16]
    if event[12]:
        return Status.RESERVED_FIELD
    if flags & ~ACCOUNT_FLAGS_KNOWN:
        return Status.RESERVED_FLAG
    if account_id == ID_ZERO:
        return Status.ID_MUST_NOT_BE_ZERO
    if account_id == ID_MAX:
        return Status.ID_MUST_NOT_BE_INT_MAX
    existing = ledger.accounts.get(account_id)
    if existing is not None:
        return _compare(event, existing)
    if flags & _BOTH_LIMITS == _BOTH_LIMITS:
        return Status.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    if event[1] or event[2]:
        return Status.DEBITS_PENDING_MUST_BE_ZERO
    if event[3] or event[4]:
        return Status.DEBITS_POSTED_MUST_BE_ZERO
    if event[5] or event[6]:
        return Status.CREDITS_PENDING_MUST_BE_ZERO
    if event[7] or event[8]:
        return Status.CREDITS_POSTED_MUST_BE_ZERO
    if not event[13]:
        return Status.LEDGER_MUST_NOT_BE_ZERO
    if not event[14]:
        return Status.CODE_MUST_NOT_BE_ZERO
    if flags & ACCOUNT_IMPORTED:
        order = ledger.account_order
        if (order and given <= order[-1].timestamp) or ledger.transfer_at(given):
            return Status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
        timestamp = given
    ledger.add_account(Account(event, timestamp))
    return CREATED


def _compare(event: AccountRow, existing: Account) -> int:
    """The status of an account whose id is taken. Its current flags are compared."""
    if event[15] != existing.flags:
        return Status.EXISTS_WITH_DIFFERENT_FLAGS
    if event[9] != existing.user_data_128:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_128
    if event[10] != existing.user_data_64:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_64
    if event[11] != existing.user_data_32:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_32
    if event[13] != existing.ledger:
        return Status.EXISTS_WITH_DIFFERENT_LEDGER
    if event[14] != existing.code:
        return Status.EXISTS_WITH_DIFFERENT_CODE
    return Status.EXISTS
