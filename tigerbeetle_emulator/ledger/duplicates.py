"""A transfer whose id is taken: it is the same transfer again, or a field differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import transfer_flags
from ..protocol.records import TransferRow
from ..protocol.status import CreateTransferStatus as Status
from ..protocol.status import first
from .pending import resolution, resolved_amount

if TYPE_CHECKING:
    from .ledger import Ledger

# Position in the row, and the status when both rows differ there: by precedence.
_DIFFERENCES = (
    (12, Status.EXISTS_WITH_DIFFERENT_FLAGS),
    (5, Status.EXISTS_WITH_DIFFERENT_PENDING_ID),
    (9, Status.EXISTS_WITH_DIFFERENT_TIMEOUT),
    (1, Status.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID),
    (2, Status.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID),
    (3, Status.EXISTS_WITH_DIFFERENT_AMOUNT),
    (4, Status.EXISTS_WITH_DIFFERENT_AMOUNT),
    (6, Status.EXISTS_WITH_DIFFERENT_USER_DATA_128),
    (7, Status.EXISTS_WITH_DIFFERENT_USER_DATA_64),
    (8, Status.EXISTS_WITH_DIFFERENT_USER_DATA_32),
    (10, Status.EXISTS_WITH_DIFFERENT_LEDGER),
    (11, Status.EXISTS_WITH_DIFFERENT_CODE),
)


def compare(ledger: Ledger, event: TransferRow, row: int) -> int:
    """The status of `event`, whose id is the stored transfer's in `row`."""
    stored = ledger.transfer(row)
    expected = event
    if stored[12] & transfer_flags.RESOLVING:
        held = ledger.transfer(ledger.transfers[stored[5]])
        expected = resolution(event, held, resolved_amount(event, held))
    elif stored[12] & transfer_flags.BALANCING:
        # The amount of a balancing transfer is an upper limit.
        amount, moved = event[3] | event[4] << 64, stored[3] | stored[4] << 64
        if amount >= moved:
            expected = (*event[:3], stored[3], stored[4], *event[5:])
    return first(*((expected[i] != stored[i], s) for i, s in _DIFFERENCES)) or Status.EXISTS
