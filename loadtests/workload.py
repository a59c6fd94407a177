"""A load whose every operation is recorded: ``make workload``.

Some workers use a few shared wallets, each with its own client, and record every request and answer
in ``history.jsonl``. It is for the checker, not for figures: small requests, one at a time for each
worker. A request without an answer within the deadline has an unknown outcome; the worker throws
its client away, and a new one sends the same ids again. At the end, after every hold has timed out,
everything is read once more. SIGTERM ends a run early, but properly.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass, replace
from itertools import count

import click
import gevent
import numpy as np
import tigerbeetle as tb

from loadtests.client import bridge, records
from loadtests.client.bridge import PACKET_ERRORS, BridgeError, NativeClient, Reply, Unanswered
from loadtests.options import seconds
from loadtests.run import runs, target
from loadtests.run.exit_codes import EXIT_PASSED, EXIT_UNKNOWN
from loadtests.run.history import CREATED, EXISTS, Operation, Outcome, Writer
from loadtests.run.result import TARGET
from loadtests.wallet import packing
from loadtests.wallet.scenario import HOLD_TIMEOUT_S, Request, Scenario, World

WORKERS = 6  # of the 64 sessions a cluster keeps: room for the clients that are thrown away
DEADLINE_S = 6.0
#: A new client's first request waits for its session, too: a second, when all is well.
CONNECT_S = 3.0
#: A worker's pause between operations: the history must stay small enough to check and to read.
PAUSE_S = 0.01
#: How long the cluster may take to answer at the start and at the end.
PATIENCE_S = 60.0
#: Expiries are carried out a little after they are due.
EXPIRY_SLACK_S = 3.0
_BATCH = 2000

_STATUSES = {
    "create_accounts": {int(s): s.name.lower() for s in tb.CreateAccountStatus},
    "create_transfers": {int(s): s.name.lower() for s in tb.CreateTransferStatus},
}


@dataclass
class Recording:
    """What all workers share."""

    cluster_id: int
    addresses: str
    world: World
    writer: Writer

    def __post_init__(self) -> None:
        self.number = count(1).__next__
        self.sent: dict[int, None] = {}  # transfer ids, in order
        self.closing: list[gevent.Greenlet] = []
        self.last_hold = 0.0
        self.acknowledged = 0


class Caller:
    """One worker's client: asks, waits within the deadline, records."""

    def __init__(self, recording: Recording, worker: int, deadline_s: float) -> None:
        self.recording, self.worker, self.deadline_s = recording, worker, deadline_s
        self.session = 0
        self._client: NativeClient | None = None

    def ask(self, request: Request, *, final: bool = False, body: bytes = b"") -> Operation:
        """Send one request, and record it with its outcome. ``body`` is a query's, packed.

        Raises BridgeError when the cluster refuses to serve.
        """
        recording = self.recording
        operation = Operation(
            number=recording.number(),
            worker=self.worker,
            session=self.session,
            invoked=time.monotonic_ns(),
            final=final,
            **vars(request),
        )
        recording.sent |= dict.fromkeys(one.id for one in request.transfers)
        if any(one.timeout for one in request.transfers):
            recording.last_hold = time.monotonic()
        operation = self._outcome(operation, body or _packed(request))
        recording.writer.add(operation)
        recording.acknowledged += operation.statuses.count(CREATED)
        return operation

    def _outcome(self, operation: Operation, body: bytes) -> Operation:
        deadline_s = self.deadline_s
        if self._client is None:
            self._client = NativeClient(self.recording.cluster_id, self.recording.addresses)
            deadline_s += CONNECT_S
        try:
            reply = self._client.call(tb.Operation[operation.kind.upper()], body, deadline_s)
        except Unanswered:
            self.close()
            return operation
        completed = time.monotonic_ns()
        if reply.status != tb.PacketStatus.OK:
            # Evicted, or shut down: this does not say whether the cluster has executed it.
            self.close()
            if reply.status in (3, 4):
                raise BridgeError(PACKET_ERRORS[reply.status])
            return operation
        return answered(replace(operation, completed=completed), reply)

    def close(self) -> None:
        """Throw the client away; the next request makes a new one."""
        client, self._client = self._client, None
        self.session += 1
        if client:  # bounded, but it may take as long as the bound
            self.recording.closing.append(gevent.spawn(client.close))


def answered(operation: Operation, reply: Reply) -> Operation:
    """The operation with what its reply says."""
    if operation.is_create:
        results = np.frombuffer(reply.body, records.RESULT)
        names = _STATUSES[operation.kind]
        statuses = tuple(names[code] for code in results["status"].tolist())
        outcome: Outcome = "ok" if set(statuses) <= {CREATED, EXISTS} else "rejected"
        return replace(
            operation,
            outcome=outcome,
            timestamp=reply.timestamp,
            statuses=statuses,
            timestamps=tuple(results["timestamp"].tolist()),
        )
    operation = replace(operation, outcome="ok", timestamp=reply.timestamp)
    if operation.kind == "lookup_accounts":
        return replace(operation, found_accounts=packing.unpack_accounts(reply.body))
    return replace(operation, found_transfers=packing.unpack_transfers(reply.body))


def _packed(request: Request) -> bytes:
    if request.kind == "create_accounts":
        return packing.pack_accounts(request.accounts).tobytes()
    if request.kind == "create_transfers":
        return packing.pack_transfers(request.transfers).tobytes()
    return b"".join(one.to_bytes(16, "little") for one in request.ids)


class Workload:
    """Set up, act until told to stop, settle, read everything."""

    def __init__(self, recording: Recording, workers: int, deadline_s: float, seed: int) -> None:
        self.recording = recording
        self.stopping = gevent.event.Event()
        self._head = Caller(recording, workers, PATIENCE_S)
        self._callers = [Caller(recording, worker, deadline_s) for worker in range(workers)]
        self._scenarios = [Scenario(recording.world, worker, seed) for worker in range(workers)]

    def run(self, seconds: float) -> bool:
        """The whole run; False when the cluster did not answer to the end."""
        setup = Request("create_accounts", "setup", accounts=self.recording.world.accounts())
        if self._head.ask(setup).outcome == "unknown":
            return False
        _say("started")
        acting = [gevent.spawn(self._act, caller) for caller in self._callers]
        self.stopping.wait(seconds)
        self.stopping.set()
        gevent.joinall(acting, raise_error=True)
        _say(f"settling: {self.recording.acknowledged:,} transfers acknowledged")
        return self._finish()

    def _act(self, caller: Caller) -> None:
        scenario = self._scenarios[caller.worker]
        while not self.stopping.is_set():
            request = scenario.next()
            while True:
                operation = caller.ask(request)
                is_over = operation.outcome != "unknown" or self.stopping.is_set()
                if is_over or not request.transfers:
                    break
            scenario.learn(request, operation.statuses)
            gevent.sleep(PAUSE_S)
        caller.close()

    def _finish(self) -> bool:
        """The final reads, when nothing is pending any more."""
        begun = time.monotonic()
        expires = self.recording.last_hold + HOLD_TIMEOUT_S + EXPIRY_SLACK_S
        accounts = tuple(one.id for one in self.recording.world.accounts())
        balances = Request("lookup_accounts", "all accounts", ids=accounts)
        while True:
            found = self._head.ask(balances)
            if found.outcome == "unknown":
                return False
            pending = any(one.debits_pending for one in found.found_accounts)
            is_quiet = time.monotonic() > begun + EXPIRY_SLACK_S
            if (is_quiet and not pending) or time.monotonic() > max(expires, begun) + PATIENCE_S:
                break
            gevent.sleep(0.5)
        asked = [*self._queries(), *self._lookups(), self._head.ask(balances, final=True)]
        self._head.close()
        return all(operation.outcome == "ok" for operation in asked)

    def _lookups(self) -> list[Operation]:
        ids = tuple(self.recording.sent)
        parts = (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
        return [
            self._head.ask(Request("lookup_transfers", "all transfers", ids=part), final=True)
            for part in parts
        ]

    def _queries(self) -> list[Operation]:
        """All transfers with the run's tag, sent by this run or not, page by page."""
        query = np.zeros(1, records.QUERY_FILTER)
        query["user_data_64"], query["limit"] = self.recording.world.tag, _BATCH
        request, pages = Request("query_transfers", "all of the run"), []
        while True:
            page = self._head.ask(request, final=True, body=query.tobytes())
            pages.append(page)
            if len(page.found_transfers) < _BATCH:
                return pages
            query["timestamp_min"] = page.found_transfers[-1].timestamp + 1


def _say(text: str) -> None:
    print(f"workload: {text}", file=sys.stderr, flush=True)


@click.command()
@click.option("--run-time", type=seconds, default="20", help="The workers act: 20s, 5m.")
@click.option("--workers", default=WORKERS)
@click.option("--deadline-s", default=DEADLINE_S)
@click.option("--seed", default=1)
@click.option("--run-id", help="Default: from the time.")
@click.option("--cluster-id")
@click.option("--addresses", help="Instead of the cluster that INVENTORY names.")
def main(
    run_time: int,
    workers: int,
    deadline_s: float,
    seed: int,
    run_id: str | None,
    cluster_id: str | None,
    addresses: str | None,
) -> int:
    """Act on a few wallets with every operation recorded.

    Exit codes: 0 recorded to the end, 2 wrong usage, 4 the cluster went away.
    """
    if not 1 <= workers <= 16:
        raise click.UsageError(f"--workers: expected 1 to 16, found {workers}")
    if run_time < 1 or deadline_s <= 0:
        raise click.UsageError("--run-time, --deadline-s: expected more than 0")
    tag = runs.new_tag()
    goal = target.resolve(cluster_id=cluster_id, addresses=addresses, engine=None)
    run = runs.directory() / (run_id or runs.name_of(tag))
    recording = Recording(int(goal.cluster_id), target.way(goal), World(tag), Writer(run))
    runs.write_json(run / TARGET, goal.model_dump_json(indent=2))
    workload = Workload(recording, workers, deadline_s, seed)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, workload.stopping.set)
    is_whole = workload.run(run_time)
    recording.writer.close()
    # A native thread that outlives Python would call into what is gone.
    gevent.joinall(recording.closing, timeout=2 * bridge.CLOSE_TIMEOUT_S)
    print(run)
    return EXIT_PASSED if is_whole else EXIT_UNKNOWN
