"""``make status``: each replica and the cluster, for a person or (``--json``) for a program.

Exit codes: 0 healthy, 1 degraded (commits, but a replica is missing), 2 bad configuration,
3 down (does not commit), 4 unknown (could not be read).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Literal

from rich.console import Console
from rich.table import Table

from cluster import health, inventory
from cluster.canary import Canary
from cluster.health import ReplicaHealth
from cluster.inventory import Deployment

Verdict = Literal["healthy", "degraded", "down", "unknown"]
EXIT_CODES: dict[Verdict, int] = {"healthy": 0, "degraded": 1, "down": 3, "unknown": 4}
_COLOURS: dict[Verdict, str] = {
    "healthy": "green", "degraded": "yellow", "down": "red", "unknown": "magenta",
}  # fmt: skip


def judge(replicas: list[ReplicaHealth], canary: Canary) -> Verdict:
    """The cluster's verdict. Commits decide; a missing replica degrades."""
    if not canary.commits:
        return "down"
    return "healthy" if all(r.is_normal for r in replicas) else "degraded"


def plain(
    deployment: Deployment, replicas: list[ReplicaHealth], canary: Canary
) -> dict[str, object]:
    """The status as plain data: what ``--json`` prints."""
    return {
        "deployment": deployment.name,
        "engine": deployment.engine,
        "engine_label": deployment.label,
        "cluster_id": str(deployment.cluster.id),
        "verdict": judge(replicas, canary),
        "canary": vars(canary),
        "replicas": [
            {
                "index": r.replica.index,
                "address": r.replica.address,
                "process": r.process,
                "pid": r.pid,
                "port_open": r.port_open,
                "role": r.log.role,
                "view": r.log.view,
                "release": r.log.release,
                "panics": len(r.log.panics),
            }
            for r in replicas
        ],
    }


def table(deployment: Deployment, replicas: list[ReplicaHealth]) -> Table:
    """The replicas as a person reads them."""
    drawn = Table(title=f"{deployment.label} · cluster {deployment.cluster.id}")
    for column in ("replica", "address", "process", "pid", "port", "role", "view", "release"):
        drawn.add_column(column)
    for r in replicas:
        drawn.add_row(
            str(r.replica.index), r.replica.address, r.process, str(r.pid or "-"),
            "open" if r.port_open else "closed", r.log.role,
            "-" if r.log.view is None else str(r.log.view), r.log.release or "-",
        )  # fmt: skip
    return drawn


def main() -> int:
    """Print the status of ``$INVENTORY`` or ``--inventory``; the exit code is the verdict."""
    parser = argparse.ArgumentParser(prog="python -m cluster.status", description=__doc__)
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    return show(inventory.read_or_exit(options.inventory), as_json=options.json)


def show(deployment: Deployment, *, as_json: bool) -> int:
    """Print the status for a person or, as JSON, for a program; the exit code of its verdict."""
    try:
        replicas = health.of_replicas(deployment)
        canary = (
            health.probe(deployment)
            if any(r.port_open for r in replicas)
            else Canary(False, "no port answers")
        )
    except OSError as error:
        print(f"error: the status could not be read: {error}", file=sys.stderr)
        return EXIT_CODES["unknown"]
    verdict = judge(replicas, canary)
    if as_json:
        print(json.dumps(plain(deployment, replicas, canary), indent=2))
        return EXIT_CODES[verdict]
    console = Console()
    console.print(table(deployment, replicas))
    timing = f" in {canary.commit_ms:g} ms" if canary.commits else ""
    console.print(f"canary: {canary.detail}{timing}")
    console.print(f"cluster: [bold {_COLOURS[verdict]}]{verdict}")
    return EXIT_CODES[verdict]


if __name__ == "__main__":
    sys.exit(main())
