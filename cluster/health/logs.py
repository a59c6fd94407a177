"""``make logs``: the replicas' logs, each line behind its replica's name."""

from __future__ import annotations

import sys

import click

from cluster.command import by_inventory, chosen
from cluster.config import inventory
from cluster.runtimes import of

LINES = 40


@click.command()
@by_inventory
@click.option("--replica", help="Only this one.")
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
def main(file: str, replica: str | None, *, follow: bool) -> int:
    """Print the last log lines of all replicas, each behind its replica's name."""
    deployment = inventory.read(file)
    indexes = chosen(replica, [r.index for r in deployment.cluster.replicas])
    logs = of(deployment)
    if follow:
        try:
            return logs.follow(indexes, LINES)
        except KeyboardInterrupt:
            return 0
    for index in indexes:
        lines = logs.log_tail(index, LINES)
        if not lines:
            source = logs.log_source(index)
            print(f"no log yet: {source}. Start the cluster with `{logs.up}`.", file=sys.stderr)
            return 1
        for line in lines:
            print(f"replica-{index} | {line}")
    return 0
