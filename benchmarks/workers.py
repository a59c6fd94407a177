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
from loadtests.run.result import read_result

WORKERS = (1, 2, 4, 8)
CEILING_USERS = 5000
WARMUP_S = 2
TIMEOUT_S = 600


def cost(addresses: str, cluster_id: int, workers: int, seconds: int, *more: str) -> float:
    """Actions for each second of the workers' own CPU, over a measured window."""
    name = f"bench-{runs.name_of(runs.new_tag())}"
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py", "--headless"),
        *("--processes", str(workers), "--run-time", f"{seconds + WARMUP_S}s", "--only-summary"),
        *("--addresses", addresses, "--cluster-id", str(cluster_id), "--engine", "emulator"),
        *("--warmup-s", str(WARMUP_S), "--run-id", name, "--loglevel", "ERROR", *more),
    ]
    done = subprocess.run(
        command, capture_output=True, timeout=TIMEOUT_S, check=False, cwd=REPOSITORY
    )
    result = read_result(runs.find(name))
    if result is None:
        raise RuntimeError(f"{name}: no result: {done.stderr.decode(errors='replace')[-500:]}")
    for large in runs.find(name).glob("*.bin"):
        large.unlink()
    cpu = sum(each.cpu_percent for each in result.by_worker) / 100
    return sum(each.actions_per_s for each in result.by_worker) / cpu


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="actions/s of each worker")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    names = [*(f"{count} workers" for count in WORKERS), "ceiling"]
    rows: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for count in WORKERS:
            with tigerbeetle_emulator.run() as sink:
                rate, users = str(options.rate * count), str(100 * count)
                given = ("--rate", rate, "--users", users)
                found = cost(sink.address, sink.cluster_id, count, options.seconds, *given)
            rows[f"{count} workers"].append(found)
            print(f"  {count} workers: {found:,.0f} actions for a second of CPU", flush=True)
        with tigerbeetle_emulator.run() as sink:
            crowd = ("--users", str(CEILING_USERS))
            found = cost(sink.address, sink.cluster_id, 1, options.seconds, *crowd)
        rows["ceiling"].append(found)
        print(f"  1 worker, {CEILING_USERS:,} users: {found:,.0f}", flush=True)
    medians = {name: median(found) for name, found in rows.items()}
    ratio = medians[f"{WORKERS[-1]} workers"] / medians["1 workers"]
    print(f"medians: {', '.join(f'{name} {value:,.0f}' for name, value in medians.items())}")
    print(f"{WORKERS[-1]} workers / 1: {ratio:.2f}; ceiling for a core: {medians['ceiling']:,.0f}")
    path = runs.directory() / "bench-workers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, json.dumps({"medians": medians, "ratio": ratio, "rows": rows}, indent=2))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
