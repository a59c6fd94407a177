"""Accounts, transfers and filters as bytes: layouts, flags and the account object.

Ids and 128-bit user data stay `bytes` of length 16, as they came: they are only compared. Amounts
and balances are integers. A 128-bit integer is two u64 in a layout, low half first.
"""

from __future__ import annotations

import struct

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

ACCOUNT_LINKED = 1
ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS = 2
ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS = 4
ACCOUNT_HISTORY = 8
ACCOUNT_IMPORTED = 16
ACCOUNT_CLOSED = 32
ACCOUNT_FLAGS_KNOWN = 63
_ACCOUNT_NOT_PLAIN = (
    ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS | ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS | ACCOUNT_CLOSED
)

TRANSFER_LINKED = 1
TRANSFER_PENDING = 2
TRANSFER_POST = 4
TRANSFER_VOID = 8
TRANSFER_BALANCING_DEBIT = 16
TRANSFER_BALANCING_CREDIT = 32
TRANSFER_CLOSING_DEBIT = 64
TRANSFER_CLOSING_CREDIT = 128
TRANSFER_IMPORTED = 256
TRANSFER_FLAGS_KNOWN = 511

FAILED = -1  # in place of a row number: an id that was used up by a transient failure
PENDING, POSTED, VOIDED, EXPIRED = range(4)  # what became of a pending transfer

TransferRow = tuple[bytes, bytes, bytes, int, int, bytes, bytes, int, int, int, int, int, int, int]
AccountRow = tuple[
    bytes, int, int, int, int, int, int, int, int, bytes, int, int, int, int, int, int, int
]


class Account:
    """One account with its current balances and flags.

    `flags_created` are the original flags. `plain_ledger` is the ledger while the account is open,
    without limits and with pending balances below 2^127, else -1: the hot path looks at nothing
    else. Whoever changes flags or pending balances calls `classify`.
    """

    __slots__ = (
        "code",
        "credits_pending",
        "credits_posted",
        "debits_pending",
        "debits_posted",
        "flags",
        "flags_created",
        "id",
        "ledger",
        "plain_ledger",
        "timestamp",
        "user_data_32",
        "user_data_64",
        "user_data_128",
    )

    def __init__(self, row: AccountRow, timestamp: int) -> None:
        self.id = row[0]
        self.debits_pending = self.debits_posted = 0
        self.credits_pending = self.credits_posted = 0
        self.user_data_128, self.user_data_64, self.user_data_32 = row[9:12]
        self.ledger, self.code = row[13], row[14]
        self.flags = self.flags_created = row[15]
        self.timestamp = timestamp
        self.classify()

    def classify(self) -> None:
        """Find out whether ordinary transfers may take the hot path."""
        unusual = self.flags & _ACCOUNT_NOT_PLAIN
        large = self.debits_pending > U127_MAX or self.credits_pending > U127_MAX
        self.plain_ledger = -1 if unusual or large else self.ledger

    def balances(self) -> tuple[int, int, int, int, int]:
        """debits_pending, debits_posted, credits_pending, credits_posted and the flags."""
        return (
            self.debits_pending,
            self.debits_posted,
            self.credits_pending,
            self.credits_posted,
            self.flags,
        )

    def restore(self, balances: tuple[int, int, int, int, int]) -> None:
        """Put back what `balances` returned."""
        (
            self.debits_pending,
            self.debits_posted,
            self.credits_pending,
            self.credits_posted,
            self.flags,
        ) = balances
        self.classify()

    def pack(self) -> bytes:
        """The account as a 128-byte record."""
        return ACCOUNT.pack(
            self.id,
            *split_balances(self.balances()),
            self.user_data_128,
            self.user_data_64,
            self.user_data_32,
            0,
            self.ledger,
            self.code,
            self.flags,
            self.timestamp,
        )


def split_balances(balances: tuple[int, int, int, int, int]) -> tuple[int, ...]:
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
