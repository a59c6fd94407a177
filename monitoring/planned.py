"""``make planned-stop``: tell the alerts that replicas stop on purpose, or no longer do."""

from __future__ import annotations

import argparse
import sys

from cluster.config import fail, inventory
from cluster.health.planned_stop import announce_of
from cluster.refusal import Refusal


def main() -> int:
    """``python -m monitoring.planned stop|end [--replica N]``; exit code 2 without StatsD."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.planned", description=__doc__)
    parser.add_argument("state", choices=["stop", "end"])
    parser.add_argument("--replica", type=int, help="only this one")
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    options = parser.parse_args()
    deployment = inventory.read_or_exit(options.inventory)
    cluster = deployment.cluster
    indexes = [r.index for r in cluster.replicas]
    if options.replica is not None and options.replica not in indexes:
        fail(
            Refusal(
                "REPLICA",
                expected=f"one of {', '.join(map(str, indexes))}",
                found=options.replica,
                fix="name one of them",
            )
        )
    chosen = indexes if options.replica is None else [options.replica]
    if not cluster.statsd:
        fail(
            Refusal(
                "LU_CFG_TIGERBEETLE_STATSD",
                expected="IP:PORT of the collector",
                found="nothing",
                fix="set it, then `make up` and `make monitor-up`",
            )
        )
    if not announce_of(deployment, chosen, is_planned=options.state == "stop"):
        fail(
            Refusal(
                "LU_CFG_TIGERBEETLE_STATSD",
                expected="an address that can be reached from here",
                found=cluster.statsd,
                fix="correct it, or start the cluster whose network it is in",
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
