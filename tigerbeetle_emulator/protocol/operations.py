"""The state machine's operations: numbers, sizes, limits, and whether a body is acceptable."""

from __future__ import annotations

from typing import NamedTuple

from . import multibatch
from .aegis import Buffer
from .records import ACCOUNT_FILTER, CHANGE_EVENTS_FILTER, QUERY_FILTER
from .wire import BODY_SIZE_MAX


class Operation(NamedTuple):
    """One operation as the protocol numbers it.

    `kind` names what it does; older numbers do the same in an older form: `sparse` results list
    only the failed events, and without `multi_batch` the body is one plain array.
    """

    number: int
    kind: str
    event_size: int
    result_size: int
    multi_batch: bool
    sparse: bool = False

    @property
    def batchable(self) -> bool:
        """Whether a batch holds many events; a query batch holds exactly one filter."""
        return self.kind.startswith(("create", "lookup"))

    def event_max(self, body_limit: int) -> int:
        """Most events in one batch, given the largest request body the server accepts."""
        if self.multi_batch:
            body_limit -= multibatch.trailer_size(self.event_size, 1)
        return min(body_limit // self.event_size, self.result_max)

    @property
    def result_max(self) -> int:
        """Most results in one reply."""
        reply = BODY_SIZE_MAX
        if self.multi_batch:
            reply -= multibatch.trailer_size(self.result_size, 1)
        return reply // self.result_size


_TABLE = [
    Operation(129, "create_accounts", 128, 8, False, sparse=True),
    Operation(130, "create_transfers", 128, 8, False, sparse=True),
    Operation(131, "lookup_accounts", 16, 128, False),
    Operation(132, "lookup_transfers", 16, 128, False),
    Operation(133, "get_account_transfers", 128, 128, False),
    Operation(134, "get_account_balances", 128, 128, False),
    Operation(135, "query_accounts", 64, 128, False),
    Operation(136, "query_transfers", 64, 128, False),
    Operation(137, "get_change_events", 64, 384, False),
    Operation(138, "create_accounts", 128, 8, True, sparse=True),
    Operation(139, "create_transfers", 128, 8, True, sparse=True),
    Operation(140, "lookup_accounts", 16, 128, True),
    Operation(141, "lookup_transfers", 16, 128, True),
    Operation(142, "get_account_transfers", 128, 128, True),
    Operation(143, "get_account_balances", 128, 128, True),
    Operation(144, "query_accounts", 64, 128, True),
    Operation(145, "query_transfers", 64, 128, True),
    Operation(146, "create_accounts", 128, 16, True),
    Operation(147, "create_transfers", 128, 16, True),
]
OPERATIONS = {operation.number: operation for operation in _TABLE}

_FILTER_LIMIT = {  # position of `limit` in each filter
    "get_account_transfers": (ACCOUNT_FILTER, 8),
    "get_account_balances": (ACCOUNT_FILTER, 8),
    "query_accounts": (QUERY_FILTER, 8),
    "query_transfers": (QUERY_FILTER, 8),
    "get_change_events": (CHANGE_EVENTS_FILTER, 2),
}


def batches_of(operation: Operation, body: Buffer) -> list[memoryview]:
    """The batches of a request body. Raises multibatch.TrailerError."""
    if operation.multi_batch:
        return multibatch.decode(body, operation.event_size)
    return [memoryview(body)]


def body_valid(operation: Operation, body: Buffer, body_limit: int) -> bool:
    """Whether the genuine server would execute this body instead of evicting its sender."""
    try:
        batches = batches_of(operation, body)
    except multibatch.TrailerError:
        return False
    if not all(_batch_valid(operation, batch, body_limit) for batch in batches):
        return False
    if not operation.multi_batch:
        return True
    results = sum(_results_expected(operation, batch) for batch in batches)
    trailer = multibatch.trailer_size(operation.result_size, len(batches))
    return results * operation.result_size + trailer <= BODY_SIZE_MAX


def _batch_valid(operation: Operation, batch: memoryview, body_limit: int) -> bool:
    if not operation.batchable:
        return len(batch) == operation.event_size
    count, remainder = divmod(len(batch), operation.event_size)
    return not remainder and count <= operation.event_max(body_limit)


def _results_expected(operation: Operation, batch: memoryview) -> int:
    if operation.batchable:
        count = len(batch) // operation.event_size
    else:
        layout, position = _FILTER_LIMIT[operation.kind]
        count = layout.unpack(batch)[position]
    return min(count, operation.result_max)


def timestamps_needed(operation: Operation, body: Buffer) -> int:
    """How many events of a valid body need a timestamp of their own (create operations)."""
    if not operation.kind.startswith("create"):
        return 0
    return sum(len(batch) for batch in batches_of(operation, body)) // operation.event_size
