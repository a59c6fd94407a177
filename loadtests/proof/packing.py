"""A history's transfers and accounts to and from packed records, as a client sends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loadtests.client.records import ACCOUNT, TRANSFER, Array, join, split
from loadtests.run.history import Account, Transfer

WIDE_TRANSFER = (
    "id",
    "debit_account_id",
    "credit_account_id",
    "amount",
    "pending_id",
    "user_data_128",
)
WIDE_ACCOUNT = (
    "id",
    "debits_pending",
    "debits_posted",
    "credits_pending",
    "credits_posted",
    "user_data_128",
)


def pack_transfers(transfers: Iterable[Transfer]) -> Array:
    """TRANSFER records."""
    return _pack(list(transfers), TRANSFER, WIDE_TRANSFER)


def pack_accounts(accounts: Iterable[Account]) -> Array:
    """ACCOUNT records."""
    return _pack(list(accounts), ACCOUNT, WIDE_ACCOUNT)


def unpack_transfers(body: bytes) -> tuple[Transfer, ...]:
    """From packed TRANSFER records."""
    rows = _rows(np.frombuffer(body, TRANSFER), WIDE_TRANSFER)
    return tuple(Transfer(**row) for row in rows)


def unpack_accounts(body: bytes) -> tuple[Account, ...]:
    """From packed ACCOUNT records."""
    rows = _rows(np.frombuffer(body, ACCOUNT), WIDE_ACCOUNT)
    return tuple(Account(**row) for row in rows)


def _pack(values: Sequence[Any], layout: np.dtype[Any], wide: Sequence[str]) -> Array:
    packed = np.zeros(len(values), layout)
    for name in (layout.names or ()) if values else ():
        if name != "reserved":
            column = [getattr(one, name) for one in values]
            packed[name] = [split(value) for value in column] if name in wide else column
    return packed


def _rows(packed: Array, wide: Sequence[str]) -> Iterable[dict[str, int]]:
    names = [name for name in packed.dtype.names or () if name != "reserved"]
    for row in packed:
        yield {n: join(row[n]) if n in wide else int(row[n]) for n in names}
