"""Create one account, or say why not: statuses in the genuine order of precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import account_flags
from ..protocol.records import ID_MAX, ID_ZERO, Account, AccountRow
from ..protocol.status import CREATED, first
from ..protocol.status import CreateAccountStatus as Status

if TYPE_CHECKING:
    from .ledger import Ledger

# Position in the event, field of the account, status when they differ: by precedence.
_DIFFERENCES = (
    (15, "flags", Status.EXISTS_WITH_DIFFERENT_FLAGS),
    (9, "user_data_128", Status.EXISTS_WITH_DIFFERENT_USER_DATA_128),
    (10, "user_data_64", Status.EXISTS_WITH_DIFFERENT_USER_DATA_64),
    (11, "user_data_32", Status.EXISTS_WITH_DIFFERENT_USER_DATA_32),
    (13, "ledger", Status.EXISTS_WITH_DIFFERENT_LEDGER),
    (14, "code", Status.EXISTS_WITH_DIFFERENT_CODE),
)


def create(ledger: Ledger, event: AccountRow, record: bytes, timestamp: int) -> int:
    """Create one account; returns CREATED, or the first status that forbids it."""
    account_id, flags, given = event[0], event[15], event[16]
    if status := first(
        (event[12], Status.RESERVED_FIELD),
        (flags & ~account_flags.KNOWN, Status.RESERVED_FLAG),
        (account_id == ID_ZERO, Status.ID_MUST_NOT_BE_ZERO),
        (account_id == ID_MAX, Status.ID_MUST_NOT_BE_INT_MAX),
    ):
        return status
    existing = ledger.accounts.get(account_id)
    if existing is not None:
        return _compare(event, existing)
    both_limits = flags & account_flags.LIMITS == account_flags.LIMITS
    if status := first(
        (both_limits, Status.FLAGS_ARE_MUTUALLY_EXCLUSIVE),
        (event[1] or event[2], Status.DEBITS_PENDING_MUST_BE_ZERO),
        (event[3] or event[4], Status.DEBITS_POSTED_MUST_BE_ZERO),
        (event[5] or event[6], Status.CREDITS_PENDING_MUST_BE_ZERO),
        (event[7] or event[8], Status.CREDITS_POSTED_MUST_BE_ZERO),
        (not event[13], Status.LEDGER_MUST_NOT_BE_ZERO),
        (not event[14], Status.CODE_MUST_NOT_BE_ZERO),
    ):
        return status
    if flags & account_flags.IMPORTED:
        order = ledger.account_order
        if (order and given <= order[-1].timestamp) or ledger.transfer_at(given):
            return Status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
        timestamp = given
    ledger.add_account(Account(account_id, *event[9:12], *event[13:16], timestamp))
    return CREATED


def _compare(event: AccountRow, existing: Account) -> int:
    """The status of an account whose id is taken. Its current flags are compared."""
    differences = ((event[i] != getattr(existing, name), s) for i, name, s in _DIFFERENCES)
    return first(*differences) or Status.EXISTS
