"""A history's transfers and accounts to and from packed records, as a client sends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loadtests.client.records import ACCOUNT, TRANSFER, Array, join, split, wide
from loadtests.run.history import Account, Transfer


def pack_transfers(transfers: Iterable[Transfer]) -> Array:
    """TRANSFER records."""
    return _pack(list(transfers), TRANSFER)


def pack_accounts(accounts: Iterable[Account]) -> Array:
    """ACCOUNT records."""
    return _pack(list(accounts), ACCOUNT)


def unpack_transfers(body: bytes) -> tuple[Transfer, ...]:
    """From packed TRANSFER records."""
    return tuple(Transfer(**row) for row in _rows(body, TRANSFER))


def unpack_accounts(body: bytes) -> tuple[Account, ...]:
    """From packed ACCOUNT records."""
    return tuple(Account(**row) for row in _rows(body, ACCOUNT))


def _pack(values: Sequence[Any], layout: np.dtype[np.void]) -> Array:
    packed = np.zeros(len(values), layout)
    for name in _names(layout) if values else ():
        column = [getattr(one, name) for one in values]
        packed[name] = [split(value) for value in column] if name in wide(layout) else column
    return packed


def _rows(body: bytes, layout: np.dtype[np.void]) -> Iterable[dict[str, int]]:
    names, halved = _names(layout), wide(layout)
    for row in np.frombuffer(body, layout):
        yield {n: join(row[n]) if n in halved else int(row[n]) for n in names}


def _names(layout: np.dtype[np.void]) -> list[str]:
    return [name for name in layout.names or () if name != "reserved"]
