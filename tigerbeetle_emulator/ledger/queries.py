"""Lookups and queries: reading the ledger. An invalid filter finds nothing; that is no error.

A query of transfers may take many steps. It answers as of the moment when it was asked: what comes
between its steps lies behind that moment, and transfers never change.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..protocol import account_flags, transfer_flags
from ..protocol.records import (
    ACCOUNT_FILTER,
    BALANCE,
    CHANGE_EVENT,
    CHANGE_EVENTS_FILTER,
    ID_MAX,
    ID_ZERO,
    QUERY_FILTER,
    RECORD_SIZE,
    TIMESTAMP_MAX,
    Account,
    Balances,
    split_balances,
)
from .history import Cursor, Moment, after_expiry, after_transfer
from .steps import SCANNED, WALKED, Steps, parts

if TYPE_CHECKING:
    from .ledger import Ledger

T = TypeVar("T")

# Where the fields that filters name are in a stored transfer.
_PARTS = {
    "debit_account_id": slice(16, 32),
    "credit_account_id": slice(32, 48),
    "user_data_128": slice(80, 96),
    "user_data_64": slice(96, 104),
    "user_data_32": slice(104, 108),
    "ledger": slice(112, 116),
    "code": slice(116, 118),
}
_ACCOUNT_FILTER_FIELDS = ("user_data_128", "user_data_64", "user_data_32", "code")
_QUERY_FILTER_FIELDS = ("user_data_128", "user_data_64", "user_data_32", "ledger", "code")
_FILTER_DEBITS, _FILTER_CREDITS, _FILTER_REVERSED = 1, 2, 4
_QUERY_REVERSED = 1
_CHANGE_EVENT_WORK = 4  # as that of so many transfers: two accounts' balances, and a large record
SINGLE_PHASE, TWO_PHASE_PENDING, TWO_PHASE_POSTED, TWO_PHASE_VOIDED, TWO_PHASE_EXPIRED = range(5)
_KINDS = {
    transfer_flags.PENDING: TWO_PHASE_PENDING,
    transfer_flags.POST: TWO_PHASE_POSTED,
    transfer_flags.VOID: TWO_PHASE_VOIDED,
}


class Filter(NamedTuple):
    """What a filter asks for."""

    wanted: dict[str, Any]  # field -> the value it must have
    bounds: tuple[int, int]  # timestamps, both inclusive
    limit: int
    descending: bool

    def within(self, ordered: Sequence[T], time_of: Callable[[T], int]) -> Sequence[T]:
        """What lies within the bounds, of things that are ordered by time."""
        first = bisect_left(ordered, self.bounds[0], key=time_of)
        end = bisect_right(ordered, self.bounds[1], key=time_of)
        return ordered[first:end][:: -1 if self.descending else 1]


_NOTHING = Filter({}, (1, 0), 0, False)


def _filter(
    names: tuple[str, ...], fields: Sequence[Any], limit_max: int, reversing: int
) -> Filter:
    """A filter with these fields, its highest flag being `reversing`; if invalid, for nothing."""
    *values, reserved, minimum, maximum, limit, flags = fields
    is_never = max(minimum, maximum) > TIMESTAMP_MAX or 0 < maximum < minimum
    if is_never or not limit or any(reserved) or flags >= 2 * reversing:
        return _NOTHING
    given = zip(names, values, strict=True)
    return Filter(
        {name: value for name, value in given if value not in (0, ID_ZERO)},
        (minimum or 1, maximum or TIMESTAMP_MAX),
        min(limit, limit_max),
        bool(flags & reversing),
    )


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


def _account_rows(
    ledger: Ledger, batch: memoryview, limit_max: int, now: Moment
) -> Steps[list[int]]:
    """Rows of the transfers an AccountFilter selects."""
    account_id, *fields = ACCOUNT_FILTER.unpack(batch)
    query = _filter(_ACCOUNT_FILTER_FIELDS, fields, limit_max, _FILTER_REVERSED)
    sides = fields[-1] & (_FILTER_DEBITS | _FILTER_CREDITS)
    if account_id in (ID_ZERO, ID_MAX) or not sides:
        return []
    if sides == _FILTER_DEBITS:
        query.wanted["debit_account_id"] = account_id
    elif sides == _FILTER_CREDITS:
        query.wanted["credit_account_id"] = account_id
    yield from ledger.history.catch_up()
    rows = ledger.history.rows_of(account_id)
    rows = rows[: bisect_left(rows, now.rows)]
    return (yield from _matching(ledger, query.within(rows, ledger.timestamps.__getitem__), query))


def _matching(ledger: Ledger, selected: Sequence[int], query: Filter) -> Steps[list[int]]:
    """The first of the rows whose transfers have all the values the filter wants."""
    found: list[int] = []
    for part in parts(len(selected), SCANNED):
        if part.start:
            yield
        rows: Iterable[int] = selected[part]
        for name, value in query.wanted.items():
            rows = _where(ledger, rows, _PARTS[name], value)
        found.extend(islice(rows, query.limit - len(found)))
        if len(found) == query.limit:
            break
    return found


def _where(
    ledger: Ledger, selected: Iterable[int], part: slice, value: bytes | int
) -> Iterator[int]:
    """The rows whose field at `part` has this value."""
    records, start, stop = ledger.records, part.start, part.stop
    if isinstance(value, int):
        value = value.to_bytes(stop - start, "little")
    return (
        row
        for row in selected
        if records[row * RECORD_SIZE + start : row * RECORD_SIZE + stop] == value
    )


def _packed(rows: Sequence[int], pack: Callable[[int], bytes]) -> Steps[list[bytes]]:
    """What `pack` makes of each row, in order."""
    results: list[bytes] = []
    for part in parts(len(rows), WALKED):
        if part.start:
            yield
        results += map(pack, rows[part])
    return results


def _get_account_transfers(
    ledger: Ledger, batch: memoryview, limit: int, now: Moment
) -> Steps[bytes]:
    rows = yield from _account_rows(ledger, batch, limit, now)
    return b"".join((yield from _packed(rows, ledger.record)))


def _get_account_balances(
    ledger: Ledger, batch: memoryview, limit: int, now: Moment
) -> Steps[bytes]:
    account = ledger.accounts.get(bytes(batch[:16]))
    if account is None or not account.flags & account_flags.HISTORY:
        return b""
    rows = yield from _account_rows(ledger, batch, limit, now)
    yield from ledger.history.mark(account)
    cursor = ledger.history.cursor(account)

    def balance(row: int) -> bytes:
        balances = split_balances(cursor.at(after_transfer(ledger, row)))
        return BALANCE.pack(*balances, ledger.timestamps[row], bytes(56))

    # A cursor goes forward, whichever way the answer is to run.
    ascending = sorted(rows)
    results = yield from _packed(ascending, balance)
    return b"".join(results if rows == ascending else reversed(results))


def _query_transfers(
    ledger: Ledger, batch: memoryview, limit_max: int, now: Moment
) -> Steps[bytes]:
    fields = QUERY_FILTER.unpack(batch)
    query = _filter(_QUERY_FILTER_FIELDS, fields, limit_max, _QUERY_REVERSED)
    selected = query.within(range(now.rows), ledger.timestamps.__getitem__)
    rows = yield from _matching(ledger, selected, query)
    return b"".join((yield from _packed(rows, ledger.record)))


def _query_accounts(ledger: Ledger, batch: memoryview, limit_max: int) -> bytes:
    fields = QUERY_FILTER.unpack(batch)
    query = _filter(_QUERY_FILTER_FIELDS, fields, limit_max, _QUERY_REVERSED)
    order = ledger.account_order
    found = iter(query.within(order, attrgetter("timestamp")))
    for name, value in query.wanted.items():
        found = _having(found, name, value)
    return b"".join(account.pack() for account in islice(found, query.limit))


def _having(accounts: Iterator[Account], name: str, value: object) -> Iterator[Account]:
    return (account for account in accounts if getattr(account, name) == value)


def _get_change_events(
    ledger: Ledger, batch: memoryview, limit_max: int, now: Moment
) -> Steps[bytes]:
    *bounds, limit, reserved = CHANGE_EVENTS_FILTER.unpack(batch)
    query = _filter((), (reserved, *bounds, limit, 0), limit_max, reversing=1)
    rows = query.within(range(now.rows), ledger.timestamps.__getitem__)
    transfers = ((ledger.timestamps[row], row, -1) for row in rows)
    positions = query.within(range(now.expiries), lambda position: ledger.expired[position][1])
    expiries = ((*ledger.expired[position][1:], position) for position in positions)
    results, work = [], 0
    cursors: dict[bytes, Cursor] = {}
    yield from ledger.history.catch_up()
    for event in islice(merge(transfers, expiries), query.limit):
        if work >= WALKED:
            yield
            work = 0
        for account_id in ledger.transfer(event[1])[1:3]:
            if account_id not in cursors:
                account = ledger.accounts[account_id]
                work += yield from ledger.history.mark(account)
                cursors[account_id] = ledger.history.cursor(account)
        results.append(_change_event(ledger, cursors, *event))
        work += _CHANGE_EVENT_WORK
    return b"".join(results)


def _change_event(
    ledger: Ledger, cursors: dict[bytes, Cursor], timestamp: int, row: int, expiry: int
) -> bytes:
    """One change event: of the transfer in `row`, or of its expiry when `expiry` >= 0."""
    event = ledger.transfer(row)
    flags = event[12]
    if expiry >= 0:
        kind, moment = TWO_PHASE_EXPIRED, after_expiry(ledger, expiry)
    else:
        resolving = flags & (transfer_flags.PENDING | transfer_flags.RESOLVING)
        kind, moment = _KINDS.get(resolving, SINGLE_PHASE), after_transfer(ledger, row)
    debit, credit = ledger.accounts[event[1]], ledger.accounts[event[2]]
    return CHANGE_EVENT.pack(
        event[0],
        *event[3:10],
        event[11],
        flags,
        event[10],
        kind,
        bytes(39),
        *_event_side(debit, cursors[event[1]].at(moment)),
        *_event_side(credit, cursors[event[2]].at(moment)),
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


# In one go: looked up by id, and account balances, which the next request may change.
AT_ONCE: dict[str, Callable[[Ledger, memoryview, int], bytes]] = {
    "lookup_accounts": _lookup_accounts,
    "lookup_transfers": _lookup_transfers,
    "query_accounts": _query_accounts,
}
IN_STEPS: dict[str, Callable[[Ledger, memoryview, int, Moment], Steps[bytes]]] = {
    "get_account_transfers": _get_account_transfers,
    "get_account_balances": _get_account_balances,
    "query_transfers": _query_transfers,
    "get_change_events": _get_change_events,
}
