"""The two create operations as batches: linked chains, imported batches, results.

The rules for a single account or transfer are in `accounts` and `transfers`; here are the rules
between the events of one batch.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..protocol import account_flags, transfer_flags
from ..protocol.operations import Operation
from ..protocol.records import ACCOUNT, FAILED, RECORD_SIZE, TIMESTAMP_MAX, TRANSFER
from ..protocol.status import CREATED, TRANSIENT, CreateAccountStatus, CreateTransferStatus
from . import accounts, plain, transfers

if TYPE_CHECKING:
    from .ledger import Ledger

# The same for accounts and transfers.
_LINKED = transfer_flags.LINKED
_FAILED, _CHAIN_OPEN, _TIMESTAMP_MUST_BE_ZERO = 1, 2, 3


class Rules(NamedTuple):
    """What differs between creating accounts and creating transfers."""

    layout: struct.Struct
    create: Callable[[Ledger, Any, bytes, int], int]
    stored_timestamp: Callable[[Ledger, bytes], int]
    has_plain: bool  # whether ordinary events have the hot path of `plain`
    transient: frozenset[int]
    imported: int  # the flag
    status: type[CreateAccountStatus | CreateTransferStatus]


RULES = {
    "create_accounts": Rules(
        ACCOUNT,
        accounts.create,
        lambda ledger, account_id: ledger.accounts[account_id].timestamp,
        False,
        frozenset(),
        account_flags.IMPORTED,
        CreateAccountStatus,
    ),
    "create_transfers": Rules(
        TRANSFER,
        transfers.create,
        lambda ledger, transfer_id: ledger.timestamps[ledger.transfers[transfer_id]],
        True,
        TRANSIENT,
        transfer_flags.IMPORTED,
        CreateTransferStatus,
    ),
}


def create(ledger: Ledger, operation: Operation, batch: memoryview, last: int) -> bytes:
    """Create the events of one batch, whose last event has the timestamp `last`."""
    count = len(batch) // RECORD_SIZE
    statuses = array("Q", [CREATED]) * count
    timestamps = array("Q", range(last - count + 1, last + 1))
    if count:
        _run(ledger, RULES[operation.kind], batch, statuses, timestamps)
    if operation.sparse:
        failed = [(i, status) for i, status in enumerate(statuses) if status != CREATED]
        return b"".join(struct.pack("<II", *each) for each in failed)
    results = array("Q", bytes(16 * count))
    results[0::2], results[1::2] = timestamps, statuses
    return results.tobytes()


def _run(
    ledger: Ledger, rules: Rules, batch: memoryview, statuses: array[int], timestamps: array[int]
) -> None:
    """Create all events in order, filling in `statuses` and `timestamps` where not ordinary."""
    count, last = len(statuses), timestamps[-1]
    imported = rules.layout.unpack_from(batch)[-2] & rules.imported
    chain: int | None = None  # index of the open chain's first event
    broken = False
    create_plain = None
    if rules.has_plain and not imported:
        create_plain = plain.creator(ledger, batch, timestamps)
    index = 0
    while index < count:
        if create_plain and chain is None:
            index = create_plain(index)
            if index == count:
                break
        record = bytes(batch[index * RECORD_SIZE : (index + 1) * RECORD_SIZE])
        event = rules.layout.unpack(record)
        linked = event[-2] & _LINKED
        if linked and chain is None:
            chain = index
            ledger.open_scope()
        if linked and index == count - 1:
            status = _CHAIN_OPEN
        elif broken:
            status = _FAILED
        else:
            status = _check_timestamp(rules, event, imported, last)
            if not status:
                status = rules.create(ledger, event, record, timestamps[index])
        if status == CREATED:
            if imported:
                timestamps[index] = event[-1]
        else:
            statuses[index] = status
            if status == rules.status.EXISTS:
                timestamps[index] = rules.stored_timestamp(ledger, event[0])
            if chain is not None and not broken:
                broken = True
                ledger.discard_scope()
                statuses[chain:index] = array("Q", [_FAILED]) * (index - chain)
            if status in rules.transient:
                ledger.transfers[event[0]] = FAILED
        if chain is not None and (not linked or status == _CHAIN_OPEN):
            if not broken:
                ledger.scope = None  # all its members are kept
            chain, broken = None, False
        index += 1


def _check_timestamp(rules: Rules, event: Any, imported: int, last: int) -> int:
    """The status of an event at odds with its batch or with the clock, else 0.

    The first event decides whether a batch is imported; an imported timestamp must lie before
    the batch's own.
    """
    given, status = event[-1], rules.status
    if event[-2] & rules.imported != imported:
        return status.IMPORTED_EVENT_EXPECTED if imported else status.IMPORTED_EVENT_NOT_EXPECTED
    if not imported:
        return _TIMESTAMP_MUST_BE_ZERO if given else 0
    if not 1 <= given <= TIMESTAMP_MAX:
        return status.IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE
    return status.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE if given >= last else 0
