"""Tell the alerts that replicas stop on purpose, or no longer do.

Sent where the replicas send their metrics, as a gauge of our own, ``tb.planned_stop``: so it
reaches ``statsd_exporter`` and our collector alike. It ends by itself after an hour
(``monitoring.collector.naming.PLANNED_TTL_S``): an alarm is never off for good.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from contextlib import suppress

from cluster.config import Cluster
from cluster.config.deployment import Deployment
from cluster.runtimes import ssh, tunnel


def lines(cluster_id: int, replicas: Sequence[int], *, is_planned: bool) -> bytes:
    """The datagram."""
    return b"".join(
        b"tb.planned_stop:%d|g|#cluster:%032x,replica:%d\n" % (is_planned, cluster_id, index)
        for index in replicas
    )


def announce(cluster: Cluster, replicas: Sequence[int], *, is_planned: bool) -> bool:
    """Send it, if the replicas' metrics go anywhere at all; whether they do.

    UDP: whether anybody listens cannot be known, and no stop ever fails for it.
    """
    if not cluster.statsd:
        return False
    host, _, port = cluster.statsd.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(lines(cluster.id, replicas, is_planned=is_planned), (host, int(port)))
        return True
    return False  # no route to it, such as to a network that is gone


def announce_of(
    deployment: Deployment, replicas: Sequence[int] | None = None, *, is_planned: bool
) -> bool:
    """``announce`` of a deployment, by default for every replica.

    Where the monitoring host's firewall would not let this machine in, the host says it to itself.
    """
    cluster = deployment.cluster
    chosen = [r.index for r in cluster.replicas] if replicas is None else replicas
    if not cluster.statsd or deployment.monitoring is None or not tunnel.is_needed(deployment):
        return announce(cluster, chosen, is_planned=is_planned)
    said = lines(cluster.id, chosen, is_planned=is_planned).decode()
    send = f"printf %s {shlex.quote(said)} >/dev/udp/{cluster.statsd.replace(':', '/')}"
    try:
        return ssh.run(deployment.monitoring, f"bash -c {shlex.quote(send)}").returncode == 0
    except ssh.SshError:
        return False
