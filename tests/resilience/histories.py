"""Honest histories made without a cluster: workers, a clock, and the emulator's ledger underneath.

The ledger is the emulator's, which shares no line with the checker's model: what the two agree on,
neither has made up. A seed decides who waits for what, which answers are lost, and whether a lost
answer's request was executed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np

from loadtests.client import records
from loadtests.run.history import Account, History, Operation, Transfer
from loadtests.wallet.packing import (
    pack_accounts,
    pack_transfers,
    unpack_accounts,
    unpack_transfers,
)
from loadtests.wallet.scenario import Request, Scenario, World
from tigerbeetle_emulator.ledger.ledger import Ledger
from tigerbeetle_emulator.protocol.operations import OPERATIONS
from tigerbeetle_emulator.protocol.status import CREATED as CREATED_CODE
from tigerbeetle_emulator.protocol.status import CreateAccountStatus, CreateTransferStatus

TAG = 0x5EED
#: The older protocol forms of these operations take one plain batch: all that is needed here.
_CREATE = {"create_accounts": 146, "create_transfers": 147}
_LOOKUP = {"lookup_accounts": 131, "lookup_transfers": 132, "query_transfers": 136}
_SECOND = 1_000_000_000


@dataclass
class Cluster:
    """The emulator's ledger behind a clock that never stands still."""

    clock: int = 1_700_000_000 * _SECOND
    ledger: Ledger = field(default_factory=Ledger)

    def execute(self, request: Request) -> tuple[int, list[str], list[int], bytes]:
        """Timestamp, statuses, their timestamps, and what was read."""
        self.clock += 1000 + len(request.transfers) + len(request.accounts)
        if request.kind in _CREATE:
            return self._create(request)
        body = b"".join(one.to_bytes(16, "little") for one in request.ids)
        if request.kind == "query_transfers":
            query = np.zeros(1, records.QUERY_FILTER)
            query["user_data_64"], query["limit"] = TAG, 8000
            body = query.tobytes()
        found = self.ledger.execute(OPERATIONS[_LOOKUP[request.kind]], body, self.clock)
        return self.clock, [], [], found

    def _create(self, request: Request) -> tuple[int, list[str], list[int], bytes]:
        events = (
            pack_transfers(request.transfers)
            if request.transfers
            else pack_accounts(request.accounts)
        )
        names = CreateTransferStatus if request.transfers else CreateAccountStatus
        plain = OPERATIONS[_CREATE[request.kind]]._replace(multi_batch=False)
        found = self.ledger.execute(plain, events.tobytes(), self.clock)
        results = np.frombuffer(found, records.RESULT)
        statuses = [
            "created" if code == CREATED_CODE else names(code).name.lower()
            for code in results["status"].tolist()
        ]
        return self.clock, statuses, results["timestamp"].tolist(), b""


@dataclass
class _Flight:
    """A request on its way."""

    operation: Operation
    request: Request
    is_executed: bool = False


class Simulation:
    """Workers that overlap, lose answers, and send the same again."""

    def __init__(self, seed: int, workers: int = 3) -> None:
        self.random = random.Random(seed)
        self.cluster, self.now, self.number = Cluster(), 1_000_000, 0
        self.world = World(TAG, wallets=3)
        self.scenarios = [Scenario(self.world, worker, seed) for worker in range(workers)]
        self.sessions = [0] * workers
        self.flights: list[_Flight | None] = [None] * workers
        self.late: list[Request] = []  # given up by their workers, still on their way
        self.again: list[Request | None] = [None] * workers
        self.done: list[Operation] = []

    def run(self, steps: int) -> History:
        """Everything from the creation of accounts to the final reads."""
        setup = Request("create_accounts", "setup", accounts=self.world.accounts())
        self._whole(setup)
        for _ in range(steps):
            self._step()
        for worker, flight in enumerate(self.flights):
            if flight:
                self._lose(worker, flight)
        self.cluster.clock += 60 * _SECOND
        self._expire()
        self._finish()
        self.done.sort(key=lambda operation: operation.number)
        return History(tuple(self.done))

    def _step(self) -> None:
        self.now += self.random.randrange(1, 1000)
        self.cluster.clock += self.random.randrange(1, _SECOND // 10)
        if self.random.random() < 0.1:
            self._expire()
        if self.late and self.random.random() < 0.2:
            self.cluster.execute(self.late.pop())
        worker = self.random.randrange(len(self.flights))
        flight = self.flights[worker]
        if flight is None:
            self._invoke(worker)
        elif self.random.random() < 0.04:
            self._lose(worker, flight)
        elif not flight.is_executed:
            self._execute(flight)
        else:
            self.flights[worker] = None
            self.done.append(replace(flight.operation, completed=self.now))
            self.scenarios[worker].learn(flight.request, flight.operation.statuses)

    def _invoke(self, worker: int) -> None:
        request = self.again[worker] or self.scenarios[worker].next()
        self.again[worker] = None
        self.flights[worker] = _Flight(self._operation(request, worker), request)

    def _operation(self, request: Request, worker: int = 0) -> Operation:
        self.number += 1
        return Operation(
            number=self.number,
            worker=worker,
            session=self.sessions[worker],
            kind=request.kind,
            action=request.action,
            invoked=self.now,
            ids=request.ids,
            transfers=request.transfers,
            accounts=request.accounts,
        )

    def _execute(self, flight: _Flight) -> None:
        flight.is_executed = True
        flight.operation = answered(flight.operation, *self.cluster.execute(flight.request))

    def _lose(self, worker: int, flight: _Flight) -> None:
        """No answer comes: a new session, and the same once more."""
        asked = flight.request
        self.flights[worker] = None
        self.done.append(replace(_asked(flight.operation), outcome="unknown"))
        self.sessions[worker] += 1
        if asked.transfers:
            self.again[worker] = asked
            if not flight.is_executed and self.random.random() < 0.5:
                self.late.append(asked)

    def _expire(self) -> None:
        self.cluster.clock += 1000
        self.cluster.ledger.expire(self.cluster.clock)

    def _whole(self, request: Request, *, final: bool = False) -> None:
        operation = replace(self._operation(request), final=final)
        self.now += 10
        operation = answered(operation, *self.cluster.execute(request))
        self.now += 10
        self.done.append(replace(operation, completed=self.now))

    def _finish(self) -> None:
        sent = sorted({one.id for operation in self.done for one in operation.transfers})
        accounts = tuple(one.id for one in self.world.accounts())
        self.now += 1000
        self._whole(Request("query_transfers", "all of the run"), final=True)
        self._whole(Request("lookup_transfers", "all transfers", ids=tuple(sent)), final=True)
        self._whole(Request("lookup_accounts", "all accounts", ids=accounts), final=True)


def answered(
    operation: Operation, timestamp: int, statuses: list[str], stamps: list[int], found: bytes
) -> Operation:
    """The operation with its answer."""
    refused = any(status not in ("created", "exists") for status in statuses)
    transfers: tuple[Transfer, ...] = ()
    accounts: tuple[Account, ...] = ()
    if operation.kind == "lookup_accounts":
        accounts = unpack_accounts(found)
    elif not statuses:
        transfers = unpack_transfers(found)
    return replace(
        operation,
        outcome="rejected" if refused else "ok",
        timestamp=timestamp,
        statuses=tuple(statuses),
        timestamps=tuple(stamps),
        found_transfers=transfers,
        found_accounts=accounts,
    )


def _asked(operation: Operation) -> Operation:
    """Without what was answered."""
    return replace(
        operation, timestamp=0, statuses=(), timestamps=(), found_transfers=(), found_accounts=()
    )


def honest(seed: int, steps: int = 400) -> History:
    """A history that every check must pass."""
    return Simulation(seed).run(steps)
