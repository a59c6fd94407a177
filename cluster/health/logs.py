"""``make logs``: the replicas' logs, each line behind its replica's name."""

from __future__ import annotations

import argparse
import sys

from cluster import config
from cluster.config import inventory
from cluster.refusal import Refusal
from cluster.runtimes import base

LINES = 40


def main() -> int:
    """Print the last lines of all replicas or of one; with ``--follow``, go on until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m cluster.health.logs", description=__doc__)
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    parser.add_argument("--replica", type=int, help="only this one")
    parser.add_argument("--follow", action="store_true")
    options = parser.parse_args()
    deployment = inventory.read_or_exit(options.inventory)
    indexes = [r.index for r in deployment.cluster.replicas]
    if options.replica is not None and options.replica not in indexes:
        config.fail(
            Refusal(
                "REPLICA",
                expected=f"one of {', '.join(map(str, indexes))}",
                found=options.replica,
                fix="name one of them",
            )
        )
    chosen = indexes if options.replica is None else [options.replica]
    logs = base.of(deployment)
    if options.follow:
        try:
            return logs.follow(deployment, chosen, LINES)
        except KeyboardInterrupt:
            return 0
    for index in chosen:
        lines = logs.log_tail(deployment, index, LINES)
        if not lines:
            source = logs.log_source(deployment, index)
            print(f"no log yet: {source}. Start the cluster with `make up`.", file=sys.stderr)
            return 1
        for line in lines:
            print(f"replica-{index} | {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
