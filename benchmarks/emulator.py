"""How fast the emulator is, as a ratio to a genuine single replica in the same run.

Both servers run side by side on this machine and are measured in turns, so that whatever else the
machine does hits both. Batches are packed beforehand: what is timed is the native client and the
server, not Python. The ratios say whether the emulator gets in the way of a test; they say nothing
about TigerBeetle's own performance, which one replica on a shared machine does not show.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import tigerbeetle as tb

from benchmarks.genuine import CLUSTER_ID, Replicas
from benchmarks.results import tell
from loadtests.client.bridge import NativeClient, Reply
from loadtests.client.records import ACCOUNT, BATCH_MAX, CREATED, RESULT, TRANSFER

ACCOUNTS = 1000
EMULATOR = Path(sys.executable).parent / "tigerbeetle-emulator"
_DEADLINE_S = 30.0


def batch(generator: np.random.Generator, first_id: int, count: int) -> bytes:
    """`count` plain transfers between random accounts, ids from `first_id` on."""
    events = np.zeros(count, TRANSFER)
    events["id"][:, 0] = np.arange(first_id, first_id + count)
    debit = generator.integers(0, ACCOUNTS, count)
    events["debit_account_id"][:, 0] = debit + 1
    credit = (debit + generator.integers(1, ACCOUNTS, count)) % ACCOUNTS
    events["credit_account_id"][:, 0] = credit + 1
    events["amount"][:, 0] = generator.integers(1, 1000, count)
    events["ledger"] = events["code"] = 1
    return events.tobytes()


class Subject:
    """One server under measurement."""

    account_flags = 0

    def __init__(self, name: str, server: Replicas) -> None:
        self.name = name
        self.client = NativeClient(CLUSTER_ID, server.addresses)
        self.generator = np.random.default_rng(1)
        self.next_id = 1
        accounts = np.zeros(ACCOUNTS, ACCOUNT)
        accounts["id"][:, 0] = np.arange(1, ACCOUNTS + 1)
        accounts["ledger"] = accounts["code"] = 1
        accounts["flags"] = self.account_flags
        self._ask(tb.Operation.CREATE_ACCOUNTS, accounts.tobytes())

    def _ask(self, operation: int, body: bytes) -> Reply:
        return self.client.call(operation, body, _DEADLINE_S)

    def _prepared(self, count: int, size: int) -> list[bytes]:
        bodies = []
        for _ in range(count):
            bodies.append(batch(self.generator, self.next_id, size))
            self.next_id += size
        return bodies

    def throughput(self, batches: int) -> float:
        """Transfers a second in full batches, one in flight."""
        bodies = self._prepared(batches, BATCH_MAX)
        started = time.perf_counter()
        replies = [self._ask(tb.Operation.CREATE_TRANSFERS, body) for body in bodies]
        seconds = time.perf_counter() - started
        for reply in replies:
            statuses = np.frombuffer(reply.body, RESULT)["status"]
            assert len(statuses) == BATCH_MAX and (statuses == CREATED).all(), "not created"
        return batches * BATCH_MAX / seconds

    def latency(self, requests: int) -> float:
        """Median milliseconds of a request with a single transfer, one in flight."""
        times = []
        for body in self._prepared(requests, 1):
            started = time.perf_counter()
            self._ask(tb.Operation.CREATE_TRANSFERS, body)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1000


def measure(subjects: list[Subject], rounds: int, batches: int, requests: int) -> dict[str, object]:
    """Alternate between the subjects; medians, and the emulator's ratio to the other."""
    rates: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    latencies: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(rounds + 1):
        for subject in subjects if number % 2 else reversed(subjects):
            rate, latency = subject.throughput(batches), subject.latency(requests)
            if number:  # the first round warms up
                rates[subject.name].append(rate)
                latencies[subject.name].append(latency)
                print(f"  round {number} {subject.name:9} {rate:10,.0f} /s {latency:7.3f} ms")
    result: dict[str, object] = {
        "benchmark": "emulator",
        "rounds": rounds,
        "transfers_per_second": {n: round(statistics.median(v)) for n, v in rates.items()},
        "single_request_p50_ms": {n: round(statistics.median(v), 3) for n, v in latencies.items()},
    }
    if len(subjects) == 2:
        one, other = (subject.name for subject in subjects)
        for what, found in (("throughput_ratio", rates), ("latency_ratio", latencies)):
            pairs = zip(found[one], found[other], strict=True)
            result[what] = round(statistics.median(a / b for a, b in pairs), 2)
    return result


def main() -> int:
    """Print the medians and ratios; 0 unless a transfer was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternations after a warm-up")
    parser.add_argument("--batches", type=int, default=20, help="of 8189, per round and server")
    parser.add_argument("--requests", type=int, default=500, help="single, per round and server")
    parser.add_argument("--json", type=Path, help="store the result here")
    arguments = parser.parse_args()
    binary = os.environ.get("TIGERBEETLE_BIN") or shutil.which("tigerbeetle")
    if not binary:
        print("no genuine server in TIGERBEETLE_BIN or on PATH: no ratio")
    programs = {"emulator": EMULATOR} | ({"genuine": Path(binary)} if binary else {})
    with contextlib.ExitStack() as stack:
        subjects = []
        for label, program in programs.items():
            subject = Subject(label, stack.enter_context(Replicas(program, count=1)))
            stack.callback(subject.client.close)
            subjects.append(subject)
        result = measure(subjects, arguments.rounds, arguments.batches, arguments.requests)
    tell(result, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
