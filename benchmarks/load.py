"""How good the load generator is: ratios to references, in alternation, on the same cluster.

Full batches against `tigerbeetle benchmark`, the database's own load generator in native code: on
a fresh cluster for each of the two, since a growing one slows down. The interactive mix against the
same mix through the package's ClientSync. Needs a genuine server and about 8 GiB of memory.

``python -m benchmarks.load [--pairs 5]`` prints medians and writes runs/bench-load.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.genuine import Replicas
from cluster import REPOSITORY, config
from cluster.tigerbeetle import binary
from loadtests.run import runs
from loadtests.run.result import read_audit, read_result

PAIRS = 5
TRANSFERS = 2_000_000
ACCOUNTS = 1000
SETTLE_S = 12
MIX_S = 12
WARMUP_S = 2
PLAIN_USERS = 1000
#: Users of our own mix: beside the reference at 1,000, and where the process is at its limit.
MIX_USERS = (200, 1000, 5000)
TIMEOUT_S = 300

Row = dict[str, Any]


def native(replicas: Replicas) -> Row:
    """`tigerbeetle benchmark`: batches of 8189, no history, as our accounts have none."""
    command = [
        *(str(replicas.binary), "benchmark", f"--addresses={replicas.addresses}"),
        *(f"--account-count={ACCOUNTS}", f"--transfer-count={TRANSFERS}"),
        *("--no-history", "--query-count=0", "--id-order=tbid"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    found = re.search(r"load accepted = (\d+) tx/s", done.stdout + done.stderr)
    if found is None:
        raise RuntimeError(f"tigerbeetle benchmark said: {(done.stdout + done.stderr)[-500:]}")
    return {"transfers_per_s": int(found[1])}


def settle(replicas: Replicas) -> Row:
    """Our SettlementUser, two of them in one process."""
    return ours(replicas, "SettlementUser", users=2, seconds=SETTLE_S, wallets=ACCOUNTS // 4)


def ours(replicas: Replicas, user: str, *, users: int, seconds: int, wallets: int = 1000) -> Row:
    """One audited run of ours."""
    name = f"bench-{runs.name_of(runs.new_tag())}"
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py", "--headless"),
        *("--users", str(users), "--run-time", f"{seconds + WARMUP_S}s", "--only-summary"),
        *("--addresses", replicas.addresses, "--engine", "tigerbeetle", "--run-id", name),
        *("--wallets", str(wallets), "--warmup-s", str(WARMUP_S), "--loglevel", "ERROR", user),
    ]
    for step in (command, [sys.executable, "-m", "cluster", "audit", "--run", name]):
        subprocess.run(step, capture_output=True, timeout=TIMEOUT_S, check=False, cwd=REPOSITORY)
    result, found = read_result(runs.find(name)), read_audit(runs.find(name))
    if result is None or found is None:
        raise RuntimeError(f"{name}: no result; look into {runs.find(name)}")
    for large in runs.find(name).glob("*.bin"):
        large.unlink()  # proved, and hundreds of megabytes
    window = result.window
    return {
        "run": name,
        "transfers_per_s": window.transfers_per_s,
        "actions_per_s": window.actions_per_s,
        "p50_ms": window.latency.p50_ms,
        "p99_ms": window.latency.p99_ms,
        "hub_lag_p99_ms": window.hub_lag.p99_ms,
        "generator_cpu_percent": window.generator_cpu_percent,
        "audit": found.verdict,
        "audit_transfers": found.transfers_checked,
        "audit_seconds": found.seconds,
        "audit_peak_rss_mib": found.peak_rss_mib,
    }


def plain(replicas: Replicas) -> Row:
    """The mix through ClientSync, from locust's own statistics."""
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory) / "plain"
        command = [
            *(sys.executable, "-m", "locust", "--locustfile", "benchmarks/plain_locustfile.py"),
            *("--headless", "--users", str(PLAIN_USERS), "--spawn-rate", str(PLAIN_USERS)),
            *("--run-time", f"{MIX_S + WARMUP_S}s", "--only-summary", "--loglevel", "ERROR"),
            *("--csv", str(prefix), "--addresses", replicas.addresses),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=REPOSITORY,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        path = Path(f"{prefix}_stats.csv")
        rows = list(csv.DictReader(path.open())) if path.is_file() else []
    total = next((row for row in rows if row["Name"] == "Aggregated"), None)
    if total is None or not int(total["Request Count"]):
        raise RuntimeError(f"the reference said: {done.stderr[-800:]}")
    return {
        "actions_per_s": float(total["Requests/s"]),
        "p50_ms": float(total["50%"]),
        "p99_ms": float(total["99%"]),
    }


def full_batches(server: Path, pairs: int) -> Row:
    """Alternate the two on fresh clusters, each going first every other time."""
    rows: dict[str, list[Row]] = {"native": [], "ours": []}
    ways: dict[str, Callable[[Replicas], Row]] = {"native": native, "ours": settle}
    for pair in range(pairs):
        for name in ("native", "ours") if pair % 2 == 0 else ("ours", "native"):
            with Replicas(server) as replicas:
                rows[name].append(ways[name](replicas))
            print(f"  {name}: {rows[name][-1]['transfers_per_s']:,.0f} transfers/s", flush=True)
    ratios = [
        ours["transfers_per_s"] / native["transfers_per_s"]
        for ours, native in zip(rows["ours"], rows["native"], strict=True)
    ]
    medians = {n: median(r["transfers_per_s"] for r in rows[n]) for n in rows}
    return {
        "medians": medians,
        "ratio_of_medians": medians["ours"] / medians["native"],
        "ratio_each_pair": ratios,
        "rows": rows,
    }


def ours_at(users: int) -> str:
    """The name of a row."""
    return f"ours at {users}"


def interactive(server: Path, pairs: int) -> Row:
    """Alternate the reference and ours; then ours at other numbers of users."""
    rows: dict[str, list[Row]] = {name: [] for name in ("plain", *map(ours_at, MIX_USERS))}
    for _ in range(pairs):
        with Replicas(server) as replicas:
            rows["plain"].append(plain(replicas))
            print(f"  ClientSync: {rows['plain'][-1]['actions_per_s']:,.0f} actions/s", flush=True)
        for users in MIX_USERS:
            with Replicas(server) as replicas:
                row = ours(replicas, "WalletUser", users=users, seconds=MIX_S)
            rows[ours_at(users)].append(row)
            print(
                f"  ours, {users:,} users: {row['actions_per_s']:,.0f} actions/s, p99 "
                f"{row['p99_ms']:.0f} ms, hub lag p99 {row['hub_lag_p99_ms']:.0f} ms, generator "
                f"{row['generator_cpu_percent']:.0f} % CPU, audit {row['audit']}",
                flush=True,
            )
    medians = {name: median(row["actions_per_s"] for row in rows[name]) for name in rows}
    ratio = medians[ours_at(PLAIN_USERS)] / medians["plain"]
    return {"medians": medians, "ratio_to_plain": ratio, "rows": rows}


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--only", choices=["full-batches", "interactive"])
    options = parser.parse_args(arguments)
    server = binary.find_tigerbeetle(config.load_or_exit())
    if server is None:
        print("load: skipped, no genuine tigerbeetle server in TIGERBEETLE_BIN or on PATH")
        return 0
    found: Row = {}
    if options.only != "interactive":
        print("full batches of 8189, three replicas, a fresh cluster each", flush=True)
        full = found["full_batches"] = full_batches(server, options.pairs)
        print(f"ours / tigerbeetle benchmark: {full['ratio_of_medians']:.2f} (ratio of medians)")
    if options.only != "full-batches":
        print(
            f"interactive mix, three replicas, {PLAIN_USERS:,} users beside ClientSync", flush=True
        )
        mix = found["interactive"] = interactive(server, max(1, options.pairs))
        print(f"ours / ClientSync: {mix['ratio_to_plain']:.2f} at {PLAIN_USERS:,} users")
    path = runs.directory() / "bench-load.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, json.dumps(found, indent=2))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
