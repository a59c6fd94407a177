"""Accounts, transfers and filters as bytes: layouts and the account object.

Ids and 128-bit user data stay `bytes` of length 16, as they came: they are only compared. Amounts
and balances are integers. A 128-bit integer is two u64 in a layout, low half first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

from . import account_flags

RECORD_SIZE = 128
ID_ZERO, ID_MAX = bytes(16), b"\xff" * 16
U64_MAX = (1 << 64) - 1
U127_MAX = (1 << 127) - 1
U128_MAX = (1 << 128) - 1
TIMESTAMP_MAX = (1 << 63) - 1
NANOSECONDS = 1_000_000_000

# id, four balances (low, high), user_data_128/64/32, reserved, ledger, code, flags, timestamp
ACCOUNT = struct.Struct("<16sQQQQQQQQ16sQIIIHHQ")
# id, debit id, credit id, amount (low, high), pending_id, user_data_128/64/32, timeout, ledger,
# code, flags, timestamp
TRANSFER = struct.Struct("<16s16s16sQQ16s16sQIIIHHQ")
# debits_pending, debits_posted, credits_pending, credits_posted (low, high), timestamp, reserved
BALANCE = struct.Struct("<QQQQQQQQQ56s")
# account_id, user_data_128/64/32, code, reserved, timestamp_min, timestamp_max, limit, flags
ACCOUNT_FILTER = struct.Struct("<16s16sQIH58sQQII")
# user_data_128/64/32, ledger, code, reserved, timestamp_min, timestamp_max, limit, flags
QUERY_FILTER = struct.Struct("<16sQIIH6sQQII")
# timestamp_min, timestamp_max, limit, reserved
CHANGE_EVENTS_FILTER = struct.Struct("<QQI44s")
# transfer: id, amount, pending_id, user data, timeout, code, flags, ledger, type, reserved
# debit account, credit account: id, four balances, user_data_128/64/32, code, flags
# timestamps of event, transfer, debit account, credit account
CHANGE_EVENT = struct.Struct("<16sQQ16s16sQIIHHIB39s" + 2 * "16sQQQQQQQQ16sQIHH" + "QQQQ")

_NOT_PLAIN = account_flags.LIMITS | account_flags.CLOSED

FAILED = -1  # in place of a row number: an id that was used up by a transient failure
PENDING, POSTED, VOIDED, EXPIRED = range(4)  # what became of a pending transfer

TransferRow = tuple[bytes, bytes, bytes, int, int, bytes, bytes, int, int, int, int, int, int, int]
AccountRow = tuple[
    bytes, int, int, int, int, int, int, int, int, bytes, int, int, int, int, int, int, int
]
# debits_pending, debits_posted, credits_pending, credits_posted, flags
Balances = tuple[int, int, int, int, int]
_BALANCES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted", "flags")


@dataclass(slots=True, eq=False)
class Account:
    """One account with its current balances and flags.

    `flags_created` are the original flags. `plain_ledger` is the ledger while the account is open,
    without limits and with pending balances below 2^127, else -1: the hot path looks at nothing
    else. Whoever changes flags or pending balances calls `classify`.
    """

    id: bytes
    user_data_128: bytes
    user_data_64: int
    user_data_32: int
    ledger: int
    code: int
    flags: int
    timestamp: int
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0
    flags_created: int = field(init=False)
    plain_ledger: int = field(init=False)

    def __post_init__(self) -> None:
        self.flags_created = self.flags
        self.classify()

    def classify(self) -> None:
        """Find out whether ordinary transfers may take the hot path."""
        unusual = self.flags & _NOT_PLAIN
        large = self.debits_pending > U127_MAX or self.credits_pending > U127_MAX
        self.plain_ledger = -1 if unusual or large else self.ledger

    def restore(self, balances: Balances) -> None:
        """Put back what `balances_of` returned."""
        for name, value in zip(_BALANCES, balances, strict=True):
            setattr(self, name, value)
        self.classify()

    def pack(self) -> bytes:
        """The account as a 128-byte record."""
        return ACCOUNT.pack(
            self.id,
            *split_balances(balances_of(self)),
            self.user_data_128,
            self.user_data_64,
            self.user_data_32,
            0,
            self.ledger,
            self.code,
            self.flags,
            self.timestamp,
        )


balances_of: Callable[[Account], Balances] = attrgetter(*_BALANCES)


def split_balances(balances: Balances) -> tuple[int, ...]:
    """The four balances as (low, high) pairs of u64."""
    dpe, dpo, cpe, cpo, _ = balances
    return (
        dpe & U64_MAX,
        dpe >> 64,
        dpo & U64_MAX,
        dpo >> 64,
        cpe & U64_MAX,
        cpe >> 64,
        cpo & U64_MAX,
        cpo >> 64,
    )
