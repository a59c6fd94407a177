"""What queries of a large ledger cost everybody, as ratios to an earlier release of the emulator.

Two emulators, this one and that of `--reference`, hold the same million transfers and are measured
in turns, so that whatever else the machine does hits both. One client asks something large; another
looks up one account, again and again, until the first has its answer: its longest wait is what
counts. What is left of the two processes' memory is divided by the transfers.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import numpy as np
import psutil
import tigerbeetle as tb

from benchmarks.emulator import Subject
from benchmarks.genuine import CLUSTER_ID, Replicas
from benchmarks.results import tell
from cluster import REPOSITORY
from loadtests.client.bridge import NativeClient
from loadtests.client.records import BATCH_MAX

REFERENCE = "4b85bbf"  # the last whose queries were answered in one go
PROMISED_WAIT_MS, PROMISED_BYTES = 20, 400
_DEADLINE_S = 300.0
_U128 = [("low", "<u8"), ("high", "<u8")]
_ACCOUNT_FILTER = np.dtype(
    [
        ("account_id", _U128), ("user_data_128", _U128), ("user_data_64", "<u8"),
        ("user_data_32", "<u4"), ("code", "<u2"), ("reserved", "V58"), ("timestamp_min", "<u8"),
        ("timestamp_max", "<u8"), ("limit", "<u4"), ("flags", "<u4"),
    ]
)  # fmt: skip
_QUERY_FILTER = np.dtype(
    [
        ("user_data_128", _U128), ("user_data_64", "<u8"), ("user_data_32", "<u4"),
        ("ledger", "<u4"), ("code", "<u2"), ("reserved", "V6"), ("timestamp_min", "<u8"),
        ("timestamp_max", "<u8"), ("limit", "<u4"), ("flags", "<u4"),
    ]
)  # fmt: skip


def account_filter(account_id: int) -> bytes:
    """All transfers of an account, both sides."""
    found = np.zeros(1, _ACCOUNT_FILTER)
    found["account_id"]["low"], found["limit"], found["flags"] = account_id, BATCH_MAX, 3
    return found.tobytes()


def query_filter(code: int) -> bytes:
    """All transfers with this code."""
    found = np.zeros(1, _QUERY_FILTER)
    found["code"], found["limit"] = code, BATCH_MAX
    return found.tobytes()


#: First those that build what later ones use.
QUERIES: dict[str, tuple[int, bytes]] = {
    "account_transfers": (tb.Operation.GET_ACCOUNT_TRANSFERS, account_filter(1)),
    "account_balances": (tb.Operation.GET_ACCOUNT_BALANCES, account_filter(1)),
    "none_found": (tb.Operation.QUERY_TRANSFERS, query_filter(9)),
    "all_found": (tb.Operation.QUERY_TRANSFERS, query_filter(1)),
}


def program(source: Path, directory: Path) -> Path:
    """An executable that runs the emulator of a source tree."""
    made = directory / f"emulator-of-{source.name}"
    made.write_text(
        f'#!/bin/sh\ncd "{source}" && exec "{sys.executable}" -m tigerbeetle_emulator "$@"\n'
    )
    made.chmod(0o755)
    return made


def tree_of(commit: str, directory: Path) -> Path:
    """The emulator as it was at a commit. Raises CalledProcessError where git has none."""
    target = directory / commit
    target.mkdir()
    archive = ["git", "-C", str(REPOSITORY), "archive", commit, "tigerbeetle_emulator"]
    packed = subprocess.run(archive, check=True, stdout=subprocess.PIPE, timeout=60).stdout
    subprocess.run(["tar", "-x", "-C", str(target)], check=True, input=packed, timeout=60)
    return target


class Loaded(Subject):
    """An emulator with many transfers, and a second client."""

    account_flags = tb.AccountFlags.HISTORY

    def __init__(self, name: str, server: Replicas) -> None:
        (process,) = server._processes
        self._process = psutil.Process(process.pid)
        super().__init__(name, server)
        self.other = NativeClient(CLUSTER_ID, server.addresses)
        self._look()
        self._empty = self._process.memory_info().rss
        self.count = 0

    def fill(self, batches: int) -> float:
        """Create so many full batches; returns transfers a second."""
        rate = self.throughput(batches)
        self.count += batches * BATCH_MAX
        return rate

    def bytes_each(self) -> float:
        """Resident memory that came with the transfers, divided by them."""
        return (self._process.memory_info().rss - self._empty) / self.count

    def ask(self, operation: int, body: bytes) -> tuple[float, float]:
        """Ask something large; (longest wait of the other client meanwhile, its own), in ms."""
        asking = gevent.spawn(_milliseconds, lambda: self.client.call(operation, body, _DEADLINE_S))
        waits = [self._look()]
        while not asking.ready():
            waits.append(self._look())
        return max(waits), asking.get()

    def _look(self) -> float:
        body = (1).to_bytes(16, "little")
        operation = tb.Operation.LOOKUP_ACCOUNTS
        return _milliseconds(lambda: self.other.call(operation, body, _DEADLINE_S))


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def measure(subjects: list[Loaded], batches: int, rounds: int) -> dict[str, object]:
    """Fill both in turns, then ask both in turns; medians, and the ratios of this to the other."""
    rates: dict[str, list[float]] = {each.name: [] for each in subjects}
    for number in range(batches):
        for each in subjects if number % 2 else reversed(subjects):
            rates[each.name].append(each.fill(1))
    waits: dict[str, dict[str, list[float]]] = {
        query: {each.name: [] for each in subjects} for query in QUERIES
    }
    owns = {query: {each.name: list[float]() for each in subjects} for query in QUERIES}
    for number in range(rounds):
        for query, (operation, body) in QUERIES.items():
            for each in subjects if number % 2 else reversed(subjects):
                wait, own = each.ask(operation, body)
                waits[query][each.name].append(wait)
                owns[query][each.name].append(own)
                print(f"  {query:18} {each.name:9} others {wait:7.1f} ms, itself {own:7.1f} ms")
    ours, theirs = (each.name for each in subjects)

    def ratio(found: dict[str, list[float]]) -> float:
        pairs = zip(found[ours], found[theirs], strict=True)
        return round(statistics.median(one / other for one, other in pairs), 3)

    sizes = {each.name: round(each.bytes_each()) for each in subjects}
    return {
        "benchmark": "queries",
        "transfers": subjects[0].count,
        "create_ratio": ratio(rates),
        "longest_wait_ms": {
            query: {name: round(max(found), 1) for name, found in each.items()}
            for query, each in waits.items()
        },
        "longest_wait_ratio": {
            query: round(max(each[ours]) / max(each[theirs]), 3) for query, each in waits.items()
        },
        "own_time_ratio": {query: ratio(each) for query, each in owns.items()},
        "bytes_each": sizes,
        "bytes_ratio": round(sizes[ours] / sizes[theirs], 2),
        "promised": {"longest_wait_ms": PROMISED_WAIT_MS, "bytes_each": PROMISED_BYTES},
    }


def main() -> int:
    """Print the figures; 0 unless something was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", default=REFERENCE, help="a commit of this repository")
    parser.add_argument("--batches", type=int, default=123, help="of 8189 transfers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the result here")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sources = {"this": REPOSITORY, "reference": tree_of(arguments.reference, directory)}
        subjects = []
        for name, source in sources.items():
            server = stack.enter_context(Replicas(program(source, directory), count=1))
            subject = Loaded(name, server)
            stack.callback(subject.client.close)
            stack.callback(subject.other.close)
            subjects.append(subject)
        result = measure(subjects, arguments.batches, arguments.rounds)
    tell(result, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
