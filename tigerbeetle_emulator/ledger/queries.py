"""Lookups and queries: reading the ledger. An invalid filter finds nothing; that is no error."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from ..protocol.records import (
    ACCOUNT_FILTER,
    ACCOUNT_HISTORY,
    BALANCE,
    CHANGE_EVENT,
    CHANGE_EVENTS_FILTER,
    ID_MAX,
    ID_ZERO,
    QUERY_FILTER,
    RECORD_SIZE,
    TIMESTAMP_MAX,
    TRANSFER_PENDING,
    TRANSFER_POST,
    TRANSFER_VOID,
    Account,
    split_balances,
)

if TYPE_CHECKING:
    from .history import Balances
    from .ledger import Ledger

# Where the fields that filters name are in a stored transfer.
_DEBIT, _CREDIT = slice(16, 32), slice(32, 48)
_USER_DATA_128, _USER_DATA_64, _USER_DATA_32 = slice(80, 96), slice(96, 104), slice(104, 108)
_LEDGER, _CODE = slice(112, 116), slice(116, 118)
_FILTER_DEBITS, _FILTER_CREDITS, _FILTER_REVERSED = 1, 2, 4
_QUERY_REVERSED = 1
SINGLE_PHASE, TWO_PHASE_PENDING, TWO_PHASE_POSTED, TWO_PHASE_VOIDED, TWO_PHASE_EXPIRED = range(5)


def _lookup_accounts(ledger: Ledger, batch: memoryview, limit: int) -> bytes:
    find = ledger.accounts.get
    found = (find(account_id) for account_id in _ids(batch))
    return b"".join(account.pack() for account in found if account)


def _lookup_transfers(ledger: Ledger, batch: memoryview, limit: int) -> bytes:
    found = (ledger.find_transfer(transfer_id) for transfer_id in _ids(batch))
    return b"".join(ledger.record(row) for row in found if row is not None)


def _ids(batch: memoryview) -> Iterator[bytes]:
    data = bytes(batch)
    return (data[start : start + 16] for start in range(0, len(data), 16))


def _time_range(minimum: int, maximum: int) -> tuple[int, int] | None:
    """Both bounds inclusive, 0 meaning none; None for a range that cannot be."""
    if minimum > TIMESTAMP_MAX or maximum > TIMESTAMP_MAX or (maximum and minimum > maximum):
        return None
    return minimum or 1, maximum or TIMESTAMP_MAX


def _account_rows(ledger: Ledger, batch: memoryview, limit_max: int) -> Iterator[int]:
    """Rows of the transfers an AccountFilter selects."""
    (
        account_id,
        user_data_128,
        user_data_64,
        user_data_32,
        code,
        reserved,
        minimum,
        maximum,
        limit,
        flags,
    ) = ACCOUNT_FILTER.unpack(batch)
    bounds = _time_range(minimum, maximum)
    sides = flags & (_FILTER_DEBITS | _FILTER_CREDITS)
    invalid = account_id in (ID_ZERO, ID_MAX) or not sides or any(reserved) or flags > 7
    if bounds is None or invalid or not limit:
        return iter(())
    rows = ledger.history.rows_of(account_id)
    first = bisect_left(rows, bisect_left(ledger.timestamps, bounds[0]))
    end = bisect_left(rows, bisect_right(ledger.timestamps, bounds[1]))
    span: Iterable[int] = _span(first, end, bool(flags & _FILTER_REVERSED))
    selected: Iterable[int] = (rows[position] for position in span)
    if sides != _FILTER_DEBITS | _FILTER_CREDITS:
        selected = _where(
            ledger, selected, _DEBIT if sides == _FILTER_DEBITS else _CREDIT, account_id
        )
    selected = _where_user(ledger, selected, user_data_128, user_data_64, user_data_32, code)
    return islice(selected, min(limit, limit_max))


def _span(first: int, end: int, descending: bool) -> range:
    return range(end - 1, first - 1, -1) if descending else range(first, end)


def _where(ledger: Ledger, selected: Iterable[int], part: slice, value: bytes) -> Iterator[int]:
    """The rows whose bytes at `part` are `value`."""
    records, start, stop = ledger.records, part.start, part.stop
    return (
        row
        for row in selected
        if records[row * RECORD_SIZE + start : row * RECORD_SIZE + stop] == value
    )


def _where_user(
    ledger: Ledger,
    selected: Iterable[int],
    user_data_128: bytes,
    user_data_64: int,
    user_data_32: int,
    code: int,
) -> Iterable[int]:
    """The rows with these values; zero means any value."""
    if user_data_128 != ID_ZERO:
        selected = _where(ledger, selected, _USER_DATA_128, user_data_128)
    if user_data_64:
        selected = _where(ledger, selected, _USER_DATA_64, user_data_64.to_bytes(8, "little"))
    if user_data_32:
        selected = _where(ledger, selected, _USER_DATA_32, user_data_32.to_bytes(4, "little"))
    if code:
        selected = _where(ledger, selected, _CODE, code.to_bytes(2, "little"))
    return selected


def _get_account_transfers(ledger: Ledger, batch: memoryview, limit: int) -> bytes:
    return b"".join(map(ledger.record, _account_rows(ledger, batch, limit)))


def _get_account_balances(ledger: Ledger, batch: memoryview, limit: int) -> bytes:
    account_id = bytes(batch[:16])
    account = ledger.accounts.get(account_id)
    if account is None or not account.flags & ACCOUNT_HISTORY:
        return b""
    results = []
    for row in _account_rows(ledger, batch, limit):
        side = 0 if ledger.transfer(row)[1] == account_id else 1
        balances = split_balances(ledger.history.after_transfer(row)[side])
        results.append(BALANCE.pack(*balances, ledger.timestamps[row], bytes(56)))
    return b"".join(results)


def _query_filter(
    batch: memoryview,
) -> tuple[bytes, int, int, int, int, tuple[int, int], int, bool] | None:
    """The fields of a valid QueryFilter: user data, ledger, code, bounds, limit, descending."""
    (
        user_data_128,
        user_data_64,
        user_data_32,
        ledger_id,
        code,
        reserved,
        minimum,
        maximum,
        limit,
        flags,
    ) = QUERY_FILTER.unpack(batch)
    bounds = _time_range(minimum, maximum)
    if bounds is None or not limit or any(reserved) or flags & ~_QUERY_REVERSED:
        return None
    descending = bool(flags & _QUERY_REVERSED)
    return user_data_128, user_data_64, user_data_32, ledger_id, code, bounds, limit, descending


def _query_transfers(ledger: Ledger, batch: memoryview, limit_max: int) -> bytes:
    query = _query_filter(batch)
    if query is None:
        return b""
    user_data_128, user_data_64, user_data_32, ledger_id, code, bounds, limit, descending = query
    first = bisect_left(ledger.timestamps, bounds[0])
    end = bisect_right(ledger.timestamps, bounds[1])
    selected = _where_user(
        ledger, _span(first, end, descending), user_data_128, user_data_64, user_data_32, code
    )
    if ledger_id:
        selected = _where(ledger, selected, _LEDGER, ledger_id.to_bytes(4, "little"))
    return b"".join(map(ledger.record, islice(selected, min(limit, limit_max))))


def _query_accounts(ledger: Ledger, batch: memoryview, limit_max: int) -> bytes:
    query = _query_filter(batch)
    if query is None:
        return b""
    user_data_128, user_data_64, user_data_32, ledger_id, code, bounds, limit, descending = query
    time_of, order = attrgetter("timestamp"), ledger.account_order
    first = bisect_left(order, bounds[0], key=time_of)
    end = bisect_right(order, bounds[1], key=time_of)

    def matches(account: Account) -> bool:
        return (
            user_data_128 in (ID_ZERO, account.user_data_128)
            and user_data_64 in (0, account.user_data_64)
            and user_data_32 in (0, account.user_data_32)
            and ledger_id in (0, account.ledger)
            and code in (0, account.code)
        )

    selected = filter(matches, (order[position] for position in _span(first, end, descending)))
    return b"".join(account.pack() for account in islice(selected, min(limit, limit_max)))


def _get_change_events(ledger: Ledger, batch: memoryview, limit_max: int) -> bytes:
    minimum, maximum, limit, reserved = CHANGE_EVENTS_FILTER.unpack(batch)
    bounds = _time_range(minimum, maximum)
    if bounds is None or not limit or any(reserved):
        return b""
    first = bisect_left(ledger.timestamps, bounds[0])
    end = bisect_right(ledger.timestamps, bounds[1])
    transfers = ((ledger.timestamps[row], row, -1) for row in range(first, end))
    time_of = _expiry_timestamp
    expiry_first = bisect_left(ledger.expired, bounds[0], key=time_of)
    expiry_end = bisect_right(ledger.expired, bounds[1], key=time_of)
    expiries = (
        (ledger.expired[position][1], ledger.expired[position][2], position)
        for position in range(expiry_first, expiry_end)
    )
    events = islice(merge(transfers, expiries), min(limit, limit_max))
    return b"".join(_change_event(ledger, *event) for event in events)


def _expiry_timestamp(expiry: tuple[int, int, int]) -> int:
    return expiry[1]


def _change_event(ledger: Ledger, timestamp: int, row: int, expiry: int) -> bytes:
    """One change event: of the transfer in `row`, or of its expiry when `expiry` >= 0."""
    event = ledger.transfer(row)
    flags = event[12]
    if expiry >= 0:
        kind, after = TWO_PHASE_EXPIRED, ledger.history.after_expiry(expiry)
    else:
        after = ledger.history.after_transfer(row)
        if flags & TRANSFER_PENDING:
            kind = TWO_PHASE_PENDING
        elif flags & TRANSFER_POST:
            kind = TWO_PHASE_POSTED
        else:
            kind = TWO_PHASE_VOIDED if flags & TRANSFER_VOID else SINGLE_PHASE
    debit, credit = ledger.accounts[event[1]], ledger.accounts[event[2]]
    return CHANGE_EVENT.pack(
        event[0],
        *event[3:10],
        event[11],
        flags,
        event[10],
        kind,
        bytes(39),
        *_event_side(debit, after[0]),
        *_event_side(credit, after[1]),
        timestamp,
        ledger.timestamps[row],
        debit.timestamp,
        credit.timestamp,
    )


def _event_side(account: Account, balances: Balances) -> tuple[bytes | int, ...]:
    return (
        account.id,
        *split_balances(balances),
        account.user_data_128,
        account.user_data_64,
        account.user_data_32,
        account.code,
        balances[4],
    )


ANSWERS: dict[str, Callable[[Ledger, memoryview, int], bytes]] = {
    "lookup_accounts": _lookup_accounts,
    "lookup_transfers": _lookup_transfers,
    "get_account_transfers": _get_account_transfers,
    "get_account_balances": _get_account_balances,
    "query_accounts": _query_accounts,
    "query_transfers": _query_transfers,
    "get_change_events": _get_change_events,
}
