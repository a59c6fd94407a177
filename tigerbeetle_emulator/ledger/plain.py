"""The hot path: ordinary transfers, created with as little Python per transfer as possible.

A transfer is ordinary if it is new and right, has no flags, pending_id, timeout or imported
timestamp, moves less than 2^64, and both accounts are open and without limits. The rules that need
the record alone are checked for the whole batch at once, on columns of machine words; the rest are
checked in a short loop.
Transfers that are not ordinary are left, untouched, to the rules in `transfers`.
"""

from __future__ import annotations

import contextlib
import re
import struct
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..protocol.records import RECORD_SIZE, U127_MAX

if TYPE_CHECKING:
    from .ledger import Ledger

# id, debit account id, credit account id, low half of the amount, ledger, code
_FIELDS = struct.Struct("<16s16s16sQ56xIH10x")
_WORDS = RECORD_SIZE // 8
_WORDS_ZERO = (7, 8, 9, 15)  # high half of the amount, pending_id, timestamp
_WORD_TIMEOUT, _TIMEOUT = 13, bytes(4) + b"\xff" * 4
_WORD_FLAGS, _FLAGS = 14, bytes(6) + b"\xff" * 2
_NONZERO = re.compile(rb"[^\0]")

# Creates from an index on; returns the index of the first event it left alone.
PlainCreate = Callable[[int], int]


def unusual(batch: memoryview) -> bytes:
    """A word per transfer, nonzero where its record alone makes it unusual; empty if none is."""
    words, count = batch.cast("Q"), len(batch) // RECORD_SIZE

    def column(word: int) -> int:
        return int.from_bytes(words[word::_WORDS].tobytes(), "little")

    found = column(_WORD_TIMEOUT) & int.from_bytes(_TIMEOUT * count, "little")
    found |= column(_WORD_FLAGS) & int.from_bytes(_FLAGS * count, "little")
    for word in _WORDS_ZERO:
        found |= column(word)
    return found.to_bytes(8 * count, "little") if found else b""


def creator(ledger: Ledger, batch: memoryview, timestamps: array[int]) -> PlainCreate:
    """The hot path for one batch, whose events have these timestamps."""
    marks, count = unusual(batch), len(timestamps)

    def create(first: int) -> int:
        mark = _NONZERO.search(marks, 8 * first) if marks else None
        end = mark.start() // 8 if mark else count
        if end == first:
            return first
        events = batch[first * RECORD_SIZE : end * RECORD_SIZE]
        created = _create(ledger, events)
        ledger.records += events[: created * RECORD_SIZE]
        ledger.timestamps.extend(timestamps[first : first + created])
        return first + created

    return create


def _create(ledger: Ledger, events: memoryview) -> int:
    """Move the amounts and take the ids of the leading ordinary events; returns how many."""
    accounts, transfers = ledger.accounts, ledger.transfers
    row = first = len(ledger.timestamps)
    with contextlib.suppress(KeyError):  # an unknown account ends the run, too
        for transfer_id, debit_id, credit_id, amount, ledger_id, code in _FIELDS.iter_unpack(
            events
        ):
            debit, credit = accounts[debit_id], accounts[credit_id]
            if (
                ledger_id != debit.plain_ledger
                or ledger_id != credit.plain_ledger
                or debit is credit
                or not code
                or transfer_id in transfers
            ):
                break
            debits = debit.debits_posted + amount
            credits = credit.credits_posted + amount
            # What is pending is less than 2^127 here, so the sum of both stays below 2^128.
            if debits > U127_MAX or credits > U127_MAX:
                break
            debit.debits_posted = debits
            credit.credits_posted = credits
            transfers[transfer_id] = row
            row += 1
    return row - first
