"""``make logs``: the replicas' logs, each line behind its replica's name."""

from __future__ import annotations

import sys

import click

from cluster.command import by_inventory, chosen
from cluster.config import inventory
from cluster.refusal import Refusal
from cluster.runtimes import of

LINES = 40


@click.command()
@by_inventory
@click.option("--replica", help="Only this one.")
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
def main(file: str, replica: str | None, *, follow: bool) -> int:
    """Print the last log lines of all replicas, each behind its replica's name.

    Exit codes: 0 all printed, 1 not: the last lines say whose are missing, and why.
    """
    deployment = inventory.read(file)
    indexes = chosen(replica, [r.index for r in deployment.cluster.replicas])
    logs = of(deployment)
    if follow:
        try:
            return logs.follow(indexes, LINES)
        except KeyboardInterrupt:
            return 0
    missing = []
    for index in indexes:
        try:
            lines = logs.log_tail(index, LINES)
        except Refusal as away:
            missing.append(f"replica {index}: its log was not read: {away}")
            continue
        if not lines:
            missing.append(f"no log yet: {logs.log_source(index)}. Fix: {logs.up}")
        for line in lines:
            print(f"replica-{index} | {line}")
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0
