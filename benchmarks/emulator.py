"""How fast the emulator is, as a ratio to a genuine single replica in the same run.

Both servers run side by side on this machine and are measured in turns, so that whatever else the
machine does hits both. Batches are packed beforehand: what is timed is the native client and the
server, not Python. The ratios say whether the emulator gets in the way of a test; they say nothing
about TigerBeetle's own performance, which one replica on a shared machine does not show.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.emulator import records, servers
from tests.emulator.native import NativeClient

ACCOUNTS = 1000
BATCH = 8189
_TRANSFER = np.dtype(
    [
        ("id", "<u8", 2),
        ("debit", "<u8", 2),
        ("credit", "<u8", 2),
        ("amount", "<u8", 2),
        ("rest", "V48"),
        ("ledger", "<u4"),
        ("code", "<u2"),
        ("flags", "<u2"),
        ("timestamp", "<u8"),
    ]
)


def batch(generator: np.random.Generator, first_id: int, count: int) -> bytes:
    """`count` plain transfers between random accounts, ids from `first_id` on."""
    events = np.zeros(count, _TRANSFER)
    events["id"][:, 0] = np.arange(first_id, first_id + count)
    debit = generator.integers(0, ACCOUNTS, count)
    events["debit"][:, 0] = debit + 1
    events["credit"][:, 0] = (debit + generator.integers(1, ACCOUNTS, count)) % ACCOUNTS + 1
    events["amount"][:, 0] = generator.integers(1, 1000, count)
    events["ledger"] = events["code"] = 1
    return events.tobytes()


class Subject:
    """One server under measurement."""

    def __init__(self, name: str, server: servers.ServerProcess) -> None:
        self.name, self.server = name, server
        self.client = NativeClient(0, server.addresses)
        self.generator = np.random.default_rng(1)
        self.next_id = 1
        accounts = [records.pack(records.ACCOUNT, id=i + 1, ledger=1, code=1) for i in range(1000)]
        self.client.request(records.CREATE_ACCOUNTS, b"".join(accounts))

    def _prepared(self, count: int, size: int) -> list[bytes]:
        bodies = []
        for _ in range(count):
            bodies.append(batch(self.generator, self.next_id, size))
            self.next_id += size
        return bodies

    def throughput(self, batches: int) -> float:
        """Transfers a second in full batches, one in flight."""
        bodies = self._prepared(batches, BATCH)
        started = time.perf_counter()
        replies = [self.client.request(records.CREATE_TRANSFERS, body) for body in bodies]
        seconds = time.perf_counter() - started
        for reply in replies:
            statuses = np.frombuffer(reply.data, "<u4")[2::4]
            assert len(statuses) == BATCH and (statuses == records.CREATED).all(), "not created"
        return batches * BATCH / seconds

    def latency(self, requests: int) -> float:
        """Median milliseconds of a request with a single transfer, one in flight."""
        times = []
        for body in self._prepared(requests, 1):
            started = time.perf_counter()
            self.client.request(records.CREATE_TRANSFERS, body)
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
        pairs = zip(rates[one], rates[other], strict=True)
        result["throughput_ratio"] = round(statistics.median(a / b for a, b in pairs), 2)
        pairs = zip(latencies[one], latencies[other], strict=True)
        result["latency_ratio"] = round(statistics.median(a / b for a, b in pairs), 2)
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
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        running = []
        try:
            programs = {"emulator": servers.EMULATOR} | ({"genuine": (binary,)} if binary else {})
            for label, program in programs.items():
                directory = Path(name) / label
                directory.mkdir()
                server = servers.ServerProcess(program, directory, options=("--cache-grid=512MiB",))
                running.append(server.start())
            if not binary:
                print("no genuine server in TIGERBEETLE_BIN or on PATH: no ratio")
            subjects = [Subject(*each) for each in zip(programs, running, strict=True)]
            try:
                result = measure(subjects, arguments.rounds, arguments.batches, arguments.requests)
            finally:
                for subject in subjects:
                    subject.client.close()
        finally:
            for server in running:
                server.stop()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
