"""A transfer whose id is taken: it is the same transfer again, or a field differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.records import (
    ID_ZERO,
    TRANSFER_BALANCING_CREDIT,
    TRANSFER_BALANCING_DEBIT,
    TRANSFER_POST,
    TRANSFER_VOID,
    U64_MAX,
    TransferRow,
)
from ..protocol.status import CreateTransferStatus as Status
from .pending import resolved_amount

if TYPE_CHECKING:
    from .ledger import Ledger


def compare(ledger: Ledger, event: TransferRow, row: int) -> int:
    """The status of `event`, whose id is the stored transfer's in `row`."""
    stored = ledger.transfer(row)
    if event[12] != stored[12]:
        return Status.EXISTS_WITH_DIFFERENT_FLAGS
    if event[5] != stored[5]:
        return Status.EXISTS_WITH_DIFFERENT_PENDING_ID
    if event[9] != stored[9]:
        return Status.EXISTS_WITH_DIFFERENT_TIMEOUT
    if event[12] & (TRANSFER_POST | TRANSFER_VOID):
        held = ledger.transfer(ledger.transfers[event[5]])
        expected = _expected_resolution(event, stored, held)
    else:
        expected = event
        if event[12] & (TRANSFER_BALANCING_DEBIT | TRANSFER_BALANCING_CREDIT):
            # The amount of a balancing transfer is an upper limit.
            amount, moved = event[3] | event[4] << 64, stored[3] | stored[4] << 64
            if amount >= moved:
                expected = (*event[:3], stored[3], stored[4], *event[5:])
    return _first_difference(expected, stored)


def _expected_resolution(event: TransferRow, stored: TransferRow, held: TransferRow) -> TransferRow:
    """What a post or void would have stored, taking its zeroes from the right places."""
    amount = resolved_amount(event, held)
    return (
        event[0],
        event[1] if event[1] != ID_ZERO else stored[1],
        event[2] if event[2] != ID_ZERO else stored[2],
        amount & U64_MAX,
        amount >> 64,
        event[5],
        event[6] if event[6] != ID_ZERO else held[6],
        event[7] or held[7],
        event[8] or held[8],
        event[9],
        event[10] or stored[10],
        event[11] or stored[11],
        event[12],
        event[13],
    )


def _first_difference(event: TransferRow, stored: TransferRow) -> int:
    if event[1] != stored[1]:
        return Status.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID
    if event[2] != stored[2]:
        return Status.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID
    if event[3:5] != stored[3:5]:
        return Status.EXISTS_WITH_DIFFERENT_AMOUNT
    if event[6] != stored[6]:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_128
    if event[7] != stored[7]:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_64
    if event[8] != stored[8]:
        return Status.EXISTS_WITH_DIFFERENT_USER_DATA_32
    if event[10] != stored[10]:
        return Status.EXISTS_WITH_DIFFERENT_LEDGER
    if event[11] != stored[11]:
        return Status.EXISTS_WITH_DIFFERENT_CODE
    return Status.EXISTS
