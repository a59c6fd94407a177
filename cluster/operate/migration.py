"""How a whole ledger is moved into a new cluster, row by row. Pure; columns, not objects.

A cluster's size is fixed when it is formatted. For six replicas instead of three, a new cluster
imports the old one's history with TigerBeetle's ``imported`` flag: accounts, then transfers, in the
order of their timestamps, each with its own id and timestamp. The same transfers give the same
balances. Two things cannot be imported as they were:

- a time limit (``timeout``): imported holds have none. A hold that was posted or voided keeps its
  end, which is a transfer of its own. One that timed out moved nothing: it is left out and counted.
  One that may still time out is waited for if that takes seconds, else refused: post or void it.
- ``closed``: an account is closed again by the transfer that closed it, if one did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tigerbeetle as tb

from cluster.refusal import Refusal
from loadtests.client.records import BATCH_MAX, LINKED, PENDING, POST, VOID, Array

ACCOUNT_IMPORTED = int(tb.AccountFlags.IMPORTED)
ACCOUNT_CLOSED = int(tb.AccountFlags.CLOSED)
TRANSFER_IMPORTED = int(tb.TransferFlags.IMPORTED)
_CLOSING = int(tb.TransferFlags.CLOSING_DEBIT | tb.TransferFlags.CLOSING_CREDIT)
_BALANCES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
_SECOND = 10**9
#: A hold ends within a second of its time, by the cluster's clock; ours may differ a little. One
#: that had not ended after all would show in the balances.
CLOCK_MARGIN_NS = 2 * _SECOND


@dataclass(frozen=True)
class Plan:
    """What is sent to the new cluster, in this order, and how many timed-out holds are left out."""

    accounts: Array
    transfers: Array
    left_out: int


@dataclass(frozen=True)
class Alive:
    """Holds that may still run out, and the nanoseconds until none can."""

    count: int
    left_ns: int


def alive(transfers: Array, now_ns: int) -> Alive:
    """The holds with a time limit that has not passed, neither posted nor voided."""
    ends_ns = _ends_ns(transfers[_is_open(transfers)])
    ends_ns = ends_ns[ends_ns > np.uint64(now_ns)]
    return Alive(len(ends_ns), int(ends_ns.max(initial=now_ns)) - now_ns)


def plan(accounts: Array, transfers: Array, now_ns: int) -> Plan:
    """The import of a whole ledger, both in order of timestamp. Raises Refusal."""
    _check_order("accounts", accounts)
    _check_order("transfers", transfers)
    if (holds := alive(transfers, now_ns)).count:
        left_s = -(-holds.left_ns // _SECOND)  # rounded up
        raise Refusal(
            "holds: expected none that may still run out, since imported ones have no time limit, "
            f"found {holds.count:,}. Fix: post or void them, or try again in {left_s:,} s"
        )
    left_out = _is_open(transfers)
    sent = transfers.copy()
    sent["timeout"] = 0
    sent["flags"] |= TRANSFER_IMPORTED
    _mend_chains(sent, left_out)
    return Plan(_importable(accounts, transfers), sent[~left_out], int(left_out.sum()))


def batches(transfers: Array, size: int = BATCH_MAX) -> Iterator[Array]:
    """Parts of at most ``size`` that keep chains whole. Raises Refusal for a longer chain."""
    ends = np.flatnonzero((transfers["flags"] & LINKED) == 0) + 1
    start = 0
    while start < len(transfers):
        at = int(np.searchsorted(ends, start + size, side="right")) - 1
        end = int(ends[at]) if at >= 0 else 0
        if end <= start:
            raise Refusal(
                "transfers",
                expected=f"chains of at most {size}",
                found=f"a longer one at row {start}",
                fix="make migrate again: TigerBeetle takes none, so the reading was cut",
            )
        yield transfers[start:end]
        start = end


def differences(expected: Array, found: Array, kind: str) -> list[str]:
    """How what the new cluster holds differs from what it must hold; empty when equal."""
    if len(expected) != len(found):
        return [f"{kind}: expected {len(expected):,}, found {len(found):,}"]
    return [
        f"{kind}: {field} differs in {int(unequal.sum()):,} rows, first at id "
        f"{int(expected['id'][row][0]) | int(expected['id'][row][1]) << 64}"
        for field in expected.dtype.names or ()
        if (unequal := _unequal(expected[field], found[field])).any()
        for row in [int(np.argmax(unequal))]
    ]


def as_imported(accounts: Array) -> Array:
    """The old cluster's accounts as the new one must show them: equal, but marked as imported."""
    shown = accounts.copy()
    shown["flags"] |= ACCOUNT_IMPORTED
    return shown


def keys(ids: Array) -> npt.NDArray[np.bytes_]:
    """u128 columns of shape (n, 2) as values that numpy can look up."""
    return np.ascontiguousarray(ids).view("S16").ravel()


def _is_open(transfers: Array) -> npt.NDArray[np.bool_]:
    """Which transfers are holds with a time limit that were neither posted nor voided."""
    flags = transfers["flags"]
    ended = transfers["pending_id"][(flags & (POST | VOID)) != 0]
    is_open: npt.NDArray[np.bool_] = ((flags & PENDING) != 0) & (transfers["timeout"] != 0)
    return is_open & ~np.isin(keys(transfers["id"]), keys(ended))


def _ends_ns(holds: Array) -> npt.NDArray[np.uint64]:
    """When each has run out for certain."""
    limits = holds["timeout"].astype("<u8") * np.uint64(_SECOND)
    ends: npt.NDArray[np.uint64] = holds["timestamp"] + limits + np.uint64(CLOCK_MARGIN_NS)
    return ends


def _importable(accounts: Array, transfers: Array) -> Array:
    """The accounts as they were created: no balances; open if a transfer closed them."""
    created = as_imported(accounts)
    for field in _BALANCES:
        created[field] = 0
    closing = transfers[(transfers["flags"] & _CLOSING) != 0]
    closed = np.concatenate([closing["debit_account_id"], closing["credit_account_id"]])
    by_transfer = np.isin(keys(created["id"]), keys(closed))
    created["flags"][by_transfer] &= 0xFFFF ^ ACCOUNT_CLOSED
    return created


def _mend_chains(sent: Array, left_out: npt.NDArray[np.bool_]) -> None:
    """A chain whose last transfer is left out ends with the one before it."""
    linked = (sent["flags"] & LINKED) != 0
    for row in np.flatnonzero(left_out & ~linked):
        before = row - 1
        while before >= 0 and linked[before]:
            if not left_out[before]:
                sent["flags"][before] &= 0xFFFF ^ LINKED
                break
            before -= 1


def _unequal(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    differing: npt.NDArray[np.bool_] = (a != b).reshape(len(a), -1).any(axis=1)
    return differing


def _check_order(kind: str, rows: Array) -> None:
    moments = rows["timestamp"]
    if (moments[1:] <= moments[:-1]).any():
        wanted, fix = (
            "them in order of timestamp",
            "make migrate again, and look at the old cluster",
        )
        raise Refusal(kind, expected=wanted, found="another order", fix=fix)
