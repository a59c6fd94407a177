"""``make planned-stop``: tell the alerts that replicas stop on purpose, or no longer do."""

from __future__ import annotations

import click

from cluster.command import by_inventory, chosen
from cluster.config import inventory
from cluster.health.planned_stop import announce_of
from cluster.refusal import Refusal


@click.command()
@by_inventory
@click.argument("state", type=click.Choice(["stop", "end"]))
@click.option("--replica", help="Only this one.")
def main(file: str, state: str, replica: str | None) -> None:
    """Tell the alerts that replicas stop on purpose, or no longer do."""
    deployment = inventory.read(file)
    cluster = deployment.cluster
    indexes = chosen(replica, [r.index for r in cluster.replicas])
    if not cluster.statsd:
        raise Refusal(
            "LU_CFG_TIGERBEETLE_STATSD",
            expected="IP:PORT of the collector",
            found="nothing",
            fix=f"set it, then `make up {deployment.named}` and "
            f"`make monitor-up {deployment.named}`",
        )
    if not announce_of(deployment, indexes, is_planned=state == "stop"):
        raise Refusal(
            "LU_CFG_TIGERBEETLE_STATSD",
            expected="an address that can be reached from here",
            found=cluster.statsd,
            fix="correct it, or start the cluster whose network it is in",
        )
