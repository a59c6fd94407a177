"""A ledger to write scenarios against, whatever stands behind it.

`LedgerWorld` drives the emulator's state machine in this process, with a clock of its own;
`ServerWorld` drives any server, the genuine one too, through the genuine client library. Small
numbers serve as ids: each world puts them into a namespace of its own, so that many scenarios
share a server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from tests.emulator import records
from tests.emulator.native import STATUS_OK, NativeClient
from tests.emulator.raw import RawClient, split_batches
from tests.emulator.records import Layout, Record

_ID_FIELDS = ("id", "debit_account_id", "credit_account_id", "pending_id", "account_id")


class Backend(Protocol):
    """Something that executes operations."""

    def execute(self, operation: int, body: bytes) -> tuple[int, bytes]:
        """Run one operation; returns its timestamp and the results."""

    def sleep(self, seconds: float) -> None:
        """Let time pass, expiring what times out."""


class LedgerBackend:
    """The emulator's ledger in this process. `package` may be a mutant of it."""

    def __init__(self, package: Any) -> None:
        self.ledger = import_module(f"{package.__name__}.ledger.ledger").Ledger()
        self._operations = import_module(f"{package.__name__}.protocol.operations")
        self.now = 1_700_000_000_000_000_000
        self.timestamp = 0

    def execute(self, operation: int, body: bytes) -> tuple[int, bytes]:
        _, event, result = records.OPERATIONS[operation]
        count = len(body) // records.size(event)
        if operation in records.MULTI_BATCH:
            body += records.trailer([count], records.size(event))
        kind = self._operations.OPERATIONS[operation]
        self.now += 1_000_000
        needed = self._operations.timestamps_needed(kind, body)
        self.timestamp = max(self.timestamp + 1, self.now) + needed
        data = bytes(self.ledger.execute(kind, body, self.timestamp))
        if operation in records.MULTI_BATCH:
            (data,) = split_batches(data, records.size(result))
        return self.timestamp, data

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        due = self.ledger.next_expiry()
        if due is not None and due <= self.now:
            self.timestamp = max(self.timestamp + 1, self.now) + 8190
            self.ledger.expire(self.timestamp)


class ServerBackend:
    """A server behind a native client."""

    def __init__(self, client: NativeClient) -> None:
        self._client = client

    def execute(self, operation: int, body: bytes) -> tuple[int, bytes]:
        reply = self._client.request(operation, body)
        assert reply.status == STATUS_OK, f"packet status {reply.status}"
        return reply.timestamp, reply.data

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class RawBackend:
    """A server behind a client made of sockets, which speaks the older operations too."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    def execute(self, operation: int, body: bytes) -> tuple[int, bytes]:
        _, _, result = records.OPERATIONS[operation]
        if operation not in records.MULTI_BATCH:
            answer = self._client.request(operation, body)
            return answer.timestamp, answer.body
        answer = self._client.batches(operation, [body])
        (results,) = split_batches(answer.body, records.size(result))
        return answer.timestamp, results

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class World:
    """Accounts and transfers by keyword; every method returns what the server said."""

    def __init__(self, backend: Backend, namespace: int = 1) -> None:
        self.backend = backend
        self._namespace = namespace << 64
        self.seen: dict[str, set[int]] = {"accounts": set(), "transfers": set()}
        self.timestamp = 0  # of the last create request

    def _in(self, layout: Layout, fields: dict[str, int]) -> bytes:
        placed = dict(fields)
        for name in _ID_FIELDS:
            if 0 < placed.get(name, 0) < 1 << 64:
                placed[name] |= self._namespace
        return records.pack(layout, **placed)

    def _out(self, found: list[Record]) -> list[Record]:
        for record in found:
            for name in record:
                if name.endswith("id") and record[name] & ~((1 << 64) - 1) == self._namespace:
                    record[name] &= (1 << 64) - 1
        return found

    def run(self, operation: int, events: list[dict[str, int]]) -> list[Record]:
        """Execute one batch of any operation."""
        name, event, result = records.OPERATIONS[operation]
        body = b"".join(self._in(event, fields) for fields in events)
        timestamp, data = self.backend.execute(operation, body)
        if name.startswith("create"):
            self.timestamp = timestamp
        return self._out(records.unpack(result, data))

    def sleep(self, seconds: float, until: Callable[[], bool] = lambda: True) -> None:
        """Let time pass, and then on until this holds, for fifteen seconds more at most."""
        self.backend.sleep(seconds)
        for _ in range(150):
            if until():
                return
            self.backend.sleep(0.1)

    # -- creating ------------------------------------------------------------------------------

    def accounts(self, *events: dict[str, int]) -> list[int]:
        """Create accounts in one batch; ledger 1 and code 1 unless given. Returns statuses."""
        results = self.run(records.CREATE_ACCOUNTS, [account(**event) for event in events])
        self.seen["accounts"].update(result["status"] for result in results)
        return [result["status"] for result in results]

    def transfers(self, *events: dict[str, int]) -> list[int]:
        """Create transfers in one batch, from 1 to 2 unless given. Returns statuses."""
        return [result["status"] for result in self.transfer_results(*events)]

    def transfer_results(self, *events: dict[str, int]) -> list[Record]:
        """The same with timestamps."""
        results = self.run(records.CREATE_TRANSFERS, [transfer(**event) for event in events])
        self.seen["transfers"].update(result["status"] for result in results)
        return results

    def given(self, *events: dict[str, int]) -> None:
        """Create accounts that must succeed."""
        assert set(self.accounts(*events)) == {records.CREATED}

    def moved(self, *events: dict[str, int]) -> None:
        """Create transfers that must succeed."""
        statuses = self.transfers(*events)
        assert set(statuses) == {records.CREATED}, statuses

    # -- reading -------------------------------------------------------------------------------

    def account(self, number: int) -> Record:
        """One account that must exist."""
        (found,) = self.run(records.LOOKUP_ACCOUNTS, [{"id": number}])
        return found

    def balances(self, number: int) -> tuple[int, int, int, int]:
        """debits_pending, debits_posted, credits_pending, credits_posted."""
        found = self.account(number)
        return (
            found["debits_pending"],
            found["debits_posted"],
            found["credits_pending"],
            found["credits_posted"],
        )

    def transfer(self, number: int) -> Record | None:
        """One transfer, or None."""
        found = self.run(records.LOOKUP_TRANSFERS, [{"id": number}])
        return found[0] if found else None

    def query(self, operation: int, **filter_fields: int) -> list[Record]:
        """One query; the largest limit unless given."""
        limit = 2730 if operation == records.GET_CHANGE_EVENTS else 8189
        return self.run(operation, [{"limit": limit, **filter_fields}])


def account(**fields: int) -> dict[str, int]:
    """An account's fields with ordinary defaults."""
    return {"ledger": 1, "code": 1, **fields}


def transfer(**fields: int) -> dict[str, int]:
    """A transfer's fields; posts and voids leave all but the ids to the pending transfer."""
    if fields.get("flags", 0) & 12 and "pending_id" in fields:
        return fields
    return {
        "debit_account_id": 1,
        "credit_account_id": 2,
        "amount": 1,
        "ledger": 1,
        "code": 1,
        **fields,
    }
