"""Records as the protocol documents them, packed without the emulator's own code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Layout = list[tuple[str, int]]  # field name and size in bytes, in order

_BALANCES: Layout = [
    ("debits_pending", 16),
    ("debits_posted", 16),
    ("credits_pending", 16),
    ("credits_posted", 16),
]
_USER_DATA: Layout = [("user_data_128", 16), ("user_data_64", 8), ("user_data_32", 4)]
_TIME_RANGE: Layout = [("timestamp_min", 8), ("timestamp_max", 8), ("limit", 4)]

ACCOUNT: Layout = [
    ("id", 16),
    *_BALANCES,
    *_USER_DATA,
    ("reserved", 4),
    ("ledger", 4),
    ("code", 2),
    ("flags", 2),
    ("timestamp", 8),
]
TRANSFER: Layout = [
    ("id", 16),
    ("debit_account_id", 16),
    ("credit_account_id", 16),
    ("amount", 16),
    ("pending_id", 16),
    *_USER_DATA,
    ("timeout", 4),
    ("ledger", 4),
    ("code", 2),
    ("flags", 2),
    ("timestamp", 8),
]
ID: Layout = [("id", 16)]
BALANCE: Layout = [*_BALANCES, ("timestamp", 8), ("reserved", 56)]
ACCOUNT_FILTER: Layout = [
    ("account_id", 16),
    *_USER_DATA,
    ("code", 2),
    ("reserved", 58),
    *_TIME_RANGE,
    ("flags", 4),
]
QUERY_FILTER: Layout = [
    *_USER_DATA,
    ("ledger", 4),
    ("code", 2),
    ("reserved", 6),
    *_TIME_RANGE,
    ("flags", 4),
]
CHANGE_EVENTS_FILTER: Layout = [*_TIME_RANGE, ("reserved", 44)]
_EVENT_ACCOUNT: Layout = [("id", 16), *_BALANCES, *_USER_DATA, ("code", 2), ("flags", 2)]
CHANGE_EVENT: Layout = [
    ("transfer_id", 16),
    ("transfer_amount", 16),
    ("transfer_pending_id", 16),
    *((f"transfer_{name}", size) for name, size in _USER_DATA),
    ("transfer_timeout", 4),
    ("transfer_code", 2),
    ("transfer_flags", 2),
    ("ledger", 4),
    ("type", 1),
    ("reserved", 39),
    *((f"debit_account_{name}", size) for name, size in _EVENT_ACCOUNT),
    *((f"credit_account_{name}", size) for name, size in _EVENT_ACCOUNT),
    ("timestamp", 8),
    ("transfer_timestamp", 8),
    ("debit_account_timestamp", 8),
    ("credit_account_timestamp", 8),
]
CREATE_RESULT: Layout = [("timestamp", 8), ("status", 4), ("reserved", 4)]
SPARSE_RESULT: Layout = [("index", 4), ("status", 4)]

Record = dict[str, int]


def size(layout: Layout) -> int:
    """Bytes of one record."""
    return sum(width for _, width in layout)


def pack(layout: Layout, **fields: Any) -> bytes:
    """One record; fields not named are zero."""
    unknown = set(fields) - {name for name, _ in layout}
    assert not unknown, f"no such field: {unknown}"
    return b"".join(fields.get(name, 0).to_bytes(width, "little") for name, width in layout)


def unpack(layout: Layout, data: bytes) -> list[Record]:
    """All records in `data`."""
    width = size(layout)
    assert len(data) % width == 0, f"{len(data)} bytes are no whole number of {width}"
    return [_unpack_one(layout, data, start) for start in range(0, len(data), width)]


def _unpack_one(layout: Layout, data: bytes, start: int) -> Record:
    record = {}
    for name, width in layout:
        record[name] = int.from_bytes(data[start : start + width], "little")
        start += width
    return record


def trailer(counts: Iterable[int], element_size: int) -> bytes:
    """The trailer of a multi-batch body with these element counts."""
    words = [*reversed(list(counts))]
    words.append(len(words))
    data = b"".join(word.to_bytes(2, "little") for word in words)
    return data.rjust(-(-len(data) // element_size) * element_size, b"\xff")


# operation number -> (name, layout of an event, layout of a result)
OPERATIONS: dict[int, tuple[str, Layout, Layout]] = {
    129: ("create_accounts", ACCOUNT, SPARSE_RESULT),
    130: ("create_transfers", TRANSFER, SPARSE_RESULT),
    131: ("lookup_accounts", ID, ACCOUNT),
    132: ("lookup_transfers", ID, TRANSFER),
    133: ("get_account_transfers", ACCOUNT_FILTER, TRANSFER),
    134: ("get_account_balances", ACCOUNT_FILTER, BALANCE),
    135: ("query_accounts", QUERY_FILTER, ACCOUNT),
    136: ("query_transfers", QUERY_FILTER, TRANSFER),
    137: ("get_change_events", CHANGE_EVENTS_FILTER, CHANGE_EVENT),
    138: ("create_accounts", ACCOUNT, SPARSE_RESULT),
    139: ("create_transfers", TRANSFER, SPARSE_RESULT),
    140: ("lookup_accounts", ID, ACCOUNT),
    141: ("lookup_transfers", ID, TRANSFER),
    142: ("get_account_transfers", ACCOUNT_FILTER, TRANSFER),
    143: ("get_account_balances", ACCOUNT_FILTER, BALANCE),
    144: ("query_accounts", QUERY_FILTER, ACCOUNT),
    145: ("query_transfers", QUERY_FILTER, TRANSFER),
    146: ("create_accounts", ACCOUNT, CREATE_RESULT),
    147: ("create_transfers", TRANSFER, CREATE_RESULT),
}
CREATE_ACCOUNTS, CREATE_TRANSFERS = 146, 147
LOOKUP_ACCOUNTS, LOOKUP_TRANSFERS = 140, 141
GET_ACCOUNT_TRANSFERS, GET_ACCOUNT_BALANCES = 142, 143
QUERY_ACCOUNTS, QUERY_TRANSFERS, GET_CHANGE_EVENTS = 144, 145, 137
MULTI_BATCH = range(138, 148)
CREATED = 0xFFFFFFFF
U128_MAX = (1 << 128) - 1
U63_MAX = (1 << 63) - 1
