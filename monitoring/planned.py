"""Tell the alerts that replicas stop on purpose, or no longer do.

Sent where the replicas send their metrics, as a gauge of our own, ``tb.planned_stop``: so it
reaches ``statsd_exporter`` and our collector alike. It ends by itself after an hour
(``naming.PLANNED_TTL_S``): an alarm is never off for good.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence

from cluster import inventory
from cluster.config import Cluster, ConfigError, fail


def lines(cluster_id: int, replicas: Sequence[int], *, is_planned: bool) -> bytes:
    """The datagram."""
    return b"".join(
        b"tb.planned_stop:%d|g|#cluster:%032x,replica:%d\n" % (is_planned, cluster_id, index)
        for index in replicas
    )


def announce(cluster: Cluster, replicas: Sequence[int], *, is_planned: bool) -> bool:
    """Send it, if the replicas' metrics go anywhere at all; whether they do."""
    if not cluster.statsd:
        return False
    host, _, port = cluster.statsd.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(lines(cluster.id, replicas, is_planned=is_planned), (host, int(port)))
    return True


def main() -> int:
    """``python -m monitoring.planned stop|end [--replica N]``; exit code 2 without StatsD."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.planned", description=__doc__)
    parser.add_argument("state", choices=["stop", "end"])
    parser.add_argument("--replica", type=int, help="only this one")
    parser.add_argument("--inventory", help="default: $INVENTORY, else the emulator's")
    options = parser.parse_args()
    cluster = inventory.read_or_exit(options.inventory).cluster
    indexes = [r.index for r in cluster.replicas]
    if options.replica is not None and options.replica not in indexes:
        fail(
            ConfigError(
                "REPLICA", expected=f"one of {', '.join(map(str, indexes))}",
                found=options.replica, fix="name one of them",
            )
        )  # fmt: skip
    chosen = indexes if options.replica is None else [options.replica]
    if not announce(cluster, chosen, is_planned=options.state == "stop"):
        fail(
            ConfigError(
                "LU_CFG_TIGERBEETLE_STATSD", expected="IP:PORT of the collector",
                found="nothing", fix="set it, then `make up` and `make monitor-up`",
            )
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
