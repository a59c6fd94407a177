"""Debian's node exporter on the replicas' servers: their disks and clocks, for the alerts. Pure.

It listens at the replica's address, and the firewall lets the monitoring host alone read it.
"""

from __future__ import annotations

from cluster.checks.firewall import EXPORTER_PORT
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from monitoring import host
from monitoring.host import Observation

PACKAGE = "prometheus-node-exporter"
UNIT = "node-exporter"

#: The collectors that the alerts need, and those that a person looks at next.
_COLLECTORS = ("filesystem", "timex", "cpu", "diskstats", "loadavg", "meminfo", "pressure")


def check(deployment: Deployment, index: int, seen: Observation) -> None:
    """Check that it is there or can be installed, and that its port is free. Raises Refusal."""
    what = f"replica {index}'s server"
    if not seen.programs & {PACKAGE, "apt-get"}:
        raise Refusal(
            f"{what}: expected {PACKAGE} on PATH, or apt-get to install it, found neither. "
            "Fix: install it, or leave node_exporter out"
        )
    if UNIT not in seen.running:
        ip = deployment.cluster.replicas[index].ip
        host.check_free(what, seen, "tcp", ip, EXPORTER_PORT)


def unit(deployment: Deployment, index: int) -> str:
    """Its unit on the server of replica ``index``."""
    ip = deployment.cluster.replicas[index].ip
    command = [
        f"/usr/bin/{PACKAGE}",
        f"--web.listen-address={ip}:{EXPORTER_PORT}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in _COLLECTORS),
    ]
    return host.unit_file(deployment, UNIT, command, measures_the_host=True)
