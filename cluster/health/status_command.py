"""``make status``. It waits for the canary most of the time: that one starts before all else."""

from __future__ import annotations

from contextlib import nullcontext

import click

from cluster.command import by_inventory
from cluster.tigerbeetle.canary import Probe


@click.command()
@by_inventory
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--no-canary", is_flag=True, help="Take no client session.")
@click.option("--watch", "every_s", type=float, metavar="SECONDS", help="Again and again.")
@click.option("--schema", "as_schema", is_flag=True, help="Write docs/status.schema.json.")
def main(
    file: str, *, as_json: bool, no_canary: bool, every_s: float | None, as_schema: bool
) -> int:
    """Show each replica and the cluster.

    The exit code is the verdict, for cron and load balancers: 0 healthy, 1 degraded (commits, but a
    replica is missing), 2 bad configuration, 3 down (does not commit), 4 unknown (not readable).

    The canary takes one of the cluster's 64 client sessions, and the oldest is evicted to make
    room: whoever asks more often than once a minute should add --no-canary. The verdict then rests
    on what the replicas answer. --watch does that by itself.
    """
    has_canary = not (no_canary or as_schema or every_s is not None)
    with Probe() if has_canary else nullcontext() as client:
        # All imports here: they take a while, in which the canary imports its client, and connects.
        from cluster.config import inventory
        from cluster.runtimes import tunnel

        deployment = inventory.read(file)
        if client:
            reached = tunnel.reached(deployment)
            client.connect(reached.client_addresses, deployment.cluster.id)
        from cluster.health import status

        if as_schema:
            status.SCHEMA_FILE.write_text(status.schema(), encoding="utf-8")
            return 0
        if every_s is not None:
            return status.watch(deployment, max(every_s, 0.5))
        return status.show(deployment, client, as_json=as_json)
