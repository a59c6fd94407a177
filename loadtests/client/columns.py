"""Sets and sums of 64 and 128 bits on numpy columns, exact where numpy alone would overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from loadtests.client.records import Array

LIMBS = 4

Lows = npt.NDArray[np.uint64]


def words(records: Array) -> npt.NDArray[np.uint64]:
    """Packed records as a matrix of u64, one row each: numpy copies those several times faster."""
    flat = np.ascontiguousarray(records)
    found: npt.NDArray[np.uint64] = flat.view("<u8").reshape(len(flat), flat.itemsize // 8)
    return found


def repeated(ordered: Lows) -> Lows:
    """The values that occur more than once in the sorted ``ordered``."""
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(lows: Lows, ordered: Lows) -> npt.NDArray[np.bool_]:
    """Which of ``lows`` are in the sorted ``ordered``."""
    if not len(ordered):
        return np.zeros(len(lows), bool)
    at = np.minimum(np.searchsorted(ordered, lows), len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[at] == lows
    return found


def among_ids(ids: Array, others: Array) -> npt.NDArray[np.bool_]:
    """Which of the u128 ``ids`` share their low half with one of ``others``."""
    return among(np.ascontiguousarray(ids[:, 0]), np.sort(others[:, 0]))


def limbs_of(values: Array) -> npt.NDArray[np.uint64]:
    """A u128 column as four columns of 32 bits in u64: sums of 2^32 rows cannot overflow."""
    low, high, mask = values[:, 0], values[:, 1], np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    return np.stack([low & mask, low >> shift, high & mask, high >> shift], axis=1)


def carried(limbs: Array) -> Array:
    """Sums of limbs, with what exceeds 32 bits carried upwards."""
    carried, carry = np.empty_like(limbs), np.zeros(len(limbs), np.uint64)
    for limb in range(LIMBS):
        total = limbs[:, limb] + carry
        carried[:, limb], carry = total & np.uint64(0xFFFFFFFF), total >> np.uint64(32)
    return carried


def value_of(limbs: Any) -> int:
    """The number that limbs, carried or not, stand for."""
    return sum(int(limb) << (32 * place) for place, limb in enumerate(limbs))
