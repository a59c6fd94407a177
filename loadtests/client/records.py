"""TigerBeetle's fixed-size records as numpy columns: no Python object per account or transfer.

Layouts and status codes are those of the client (release 0.17), little-endian. A u128 is a pair of
u64 columns, low half first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tigerbeetle as tb
from tigerbeetle.lib import c_uint128


def _columns(record: Any) -> np.dtype[np.void]:
    u128 = np.dtype(("<u8", (2,)))
    return np.dtype([(n, u128 if kind is c_uint128 else kind) for n, kind in record._fields_])


ACCOUNT = _columns(tb.CAccount)
TRANSFER = _columns(tb.CTransfer)
RESULT = _columns(tb.CCreateTransferResult)
#: One line of a run's record: a transfer exactly as sent, and what the cluster answered.
RECORD = np.dtype([("sent", TRANSFER), ("result", RESULT)])
QUERY_FILTER = _columns(tb.CQueryFilter)
ACCOUNT_FILTER = _columns(tb.CAccountFilter)

for _layout, _size in ((ACCOUNT, 128), (TRANSFER, 128), (RESULT, 16), (RECORD, 144)):
    if _layout.itemsize != _size:
        raise AssertionError(f"{_layout} takes {_layout.itemsize} bytes, the wire {_size}")

Array = npt.NDArray[Any]


class Rows(Protocol):
    """Records in order, of which a slice is read when it is asked for: an array, or a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Array: ...


def pieces(rows: Rows, size: int) -> Iterator[tuple[int, Array]]:
    """All rows in pieces, each with the number of its first row."""
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


class RowsOfFile:
    """The packed records of a file, of which nothing stays in memory."""

    def __init__(self, path: Path, layout: np.dtype[np.void]) -> None:
        """Look how many there are. Raises ValueError for a torn file."""
        self._path, self._layout = path, layout
        size = path.stat().st_size
        self._count, rest = divmod(size, layout.itemsize)
        if rest:
            raise ValueError(
                f"{path}: {size} bytes are no whole number of {layout.itemsize}-byte lines"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice, /) -> Array:
        """Read these; a step is of no use here."""
        start, stop, _ = rows.indices(self._count)
        offset = start * self._layout.itemsize
        return np.fromfile(self._path, self._layout, max(0, stop - start), offset=offset)


#: Events of one create or lookup batch: what 1 MiB holds less its trailer (protocol of 0.17).
BATCH_MAX = 8189

CREATED = int(tb.CreateTransferStatus.CREATED)
EXISTS = int(tb.CreateTransferStatus.EXISTS)
ACCOUNT_EXISTS = int(tb.CreateAccountStatus.EXISTS)
#: Our own mark for "sent, never answered"; the server never sends 0 in these results.
UNANSWERED = 0

LINKED = int(tb.TransferFlags.LINKED)
PENDING = int(tb.TransferFlags.PENDING)
POST = int(tb.TransferFlags.POST_PENDING_TRANSFER)
VOID = int(tb.TransferFlags.VOID_PENDING_TRANSFER)
MUST_NOT_OVERDRAW = int(tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS)

_TRANSFER_STRUCT = struct.Struct("<12QQIIIHHQ")
_MASK_64 = (1 << 64) - 1


def pack_transfer(
    id_low: int,
    id_high: int,
    debit: tuple[int, int],
    credit: tuple[int, int],
    amount: int,
    *,
    ledger: int,
    code: int,
    flags: int = 0,
    timeout_s: int = 0,
    pending: tuple[int, int] = (0, 0),
    chain: tuple[int, int] = (0, 0),
    user_data_64: int = 0,
    user_data_32: int = 0,
) -> bytes:
    """One transfer event of 128 bytes. Ids are (low, high) pairs; ``chain`` is user_data_128."""
    return _TRANSFER_STRUCT.pack(
        id_low,
        id_high,
        *debit,
        *credit,
        amount & _MASK_64,
        amount >> 64,
        *pending,
        *chain,
        user_data_64,
        user_data_32,
        timeout_s,
        ledger,
        code,
        flags,
        0,
    )


def split(value: int) -> tuple[int, int]:
    """A u128 as (low, high) halves."""
    return value & _MASK_64, value >> 64


def join(pair: Any) -> int:
    """A u128 from its (low, high) halves."""
    return int(pair[0]) | int(pair[1]) << 64


def wide(layout: np.dtype[np.void]) -> frozenset[str]:
    """The names of a record's u128 fields."""
    return frozenset(name for name in layout.names or () if layout[name].shape)


def add(a: Array, b: Array) -> Array:
    """Sum of two u128 columns of shape (n, 2), exact modulo 2^128."""
    total: Array = a + b
    total[:, 1] += total[:, 0] < a[:, 0]
    return total


def less(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where u128 column ``a`` is below ``b``; both of shape (n, 2)."""
    smaller: npt.NDArray[np.bool_] = (a[:, 1] < b[:, 1]) | (
        (a[:, 1] == b[:, 1]) & (a[:, 0] < b[:, 0])
    )
    return smaller


def overdrawn(accounts: Array) -> npt.NDArray[np.bool_]:
    """Which accounts that must not overdraw have debits, pending included, above credits."""
    limited = (accounts["flags"] & MUST_NOT_OVERDRAW) != 0
    debits = add(accounts["debits_posted"], accounts["debits_pending"])
    wrong: npt.NDArray[np.bool_] = limited & less(accounts["credits_posted"], debits)
    return wrong
