"""What a worker costs, alone and among others: actions for each second of CPU.

Workers share nothing but their master and the cluster, so one's cost must not grow with their
number. Each gets the same rate, against the emulator: a sink, whose own speed is not in question.
Then one worker with more users than it can serve: its ceiling, for a core of its own.

``python -m benchmarks.workers [--rate 300] [--seconds 10] [--rounds 3]`` prints medians and writes
runs/bench-workers.json. The rounds alternate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

import tigerbeetle_emulator
from cluster import REPOSITORY
from loadtests.run import runs
from loadtests.run.result import Result, read_result

WORKERS = (1, 2, 4, 8)
CEILING_USERS = 5000
WARMUP_S = 2
TIMEOUT_S = 600
#: Actions that were dropped say that the sink, or the machine, was the limit.
TRIES = 3


def cost(workers: int, seconds: int, *more: str) -> float | None:
    """Actions for each second of the workers' own CPU; None where the machine had no room."""
    for _ in range(TRIES):
        with tigerbeetle_emulator.run() as sink:
            result = measure(sink, workers, seconds, *more)
        if result is None:
            print(f"  void: {workers} workers, no run within its time", flush=True)
            continue
        window, cpu = result.window, sum(each.cpu_percent for each in result.by_worker) / 100
        if result.complete and not window.drops and cpu:
            return sum(each.actions_per_s for each in result.by_worker) / cpu
        print(f"  void: {workers} workers, {window.drops:,} dropped", flush=True)
    return None


def measure(
    sink: tigerbeetle_emulator.Emulator, workers: int, seconds: int, *more: str
) -> Result | None:
    """One run of so many workers; None where it did not come to its end."""
    name = f"bench-{runs.name_of(runs.new_tag())}"
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py", "--headless"),
        *("--processes", str(workers), "--run-time", f"{seconds + WARMUP_S}s", "--only-summary"),
        *("--addresses", sink.address, "--cluster-id", str(sink.cluster_id)),
        *("--engine", "emulator", "--warmup-s", str(WARMUP_S), "--run-id", name),
        *("--loglevel", "ERROR", *more),
    ]
    subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, cwd=REPOSITORY)
    for large in (runs.directory() / name).glob("*.bin"):
        large.unlink()
    return read_result(runs.directory() / name)


def median_of(row: list[float | None]) -> float | None:
    """Of those that were measured."""
    known = [each for each in row if each is not None]
    return median(known) if known else None


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="actions/s of each worker")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    rows: dict[str, list[float | None]] = {}
    for _ in range(options.rounds):
        for count in WORKERS:
            given = ("--rate", str(options.rate * count), "--users", str(100 * count))
            row = rows.setdefault(f"{count} workers", [])
            row.append(cost(count, options.seconds, *given))
        crowd = ("--users", str(CEILING_USERS))
        rows.setdefault("ceiling", []).append(cost(1, options.seconds, *crowd))
    medians = {name: median_of(row) for name, row in rows.items()}
    for name, value in medians.items():
        print(f"{name}: {f'{value:,.0f}' if value else 'not measured'} actions for a second of CPU")
    path = runs.directory() / "bench-workers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, json.dumps({"medians": medians, "rows": rows}, indent=2))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
