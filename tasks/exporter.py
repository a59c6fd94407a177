"""The node exporter of a replica's server, where the inventory has ``node_exporter=True``."""

from __future__ import annotations

from io import StringIO

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from monitoring import exporter
from monitoring import host as monitoring_host
from tasks.monitoring_host import UNITS, install_masked, observed, restart
from tasks.support.act import shell
from tasks.support.here import deployment_here, guarded
from tasks.support.observed import replica_index


@deploy("Check what the node exporter needs")
def check() -> None:
    """Its port and its package, where it is asked for. No impact."""
    deployment = deployment_here()
    if deployment.has_node_exporters:
        with guarded():
            exporter.check(deployment, replica_index(), observed())


@deploy("Run the node exporter")
def run() -> None:
    """Install and start it where it is asked for; stop it where it no longer is."""
    deployment, seen = deployment_here(), observed()
    unit = monitoring_host.unit(exporter.UNIT)
    if not deployment.has_node_exporters:
        if exporter.UNIT in seen.running:
            shell("Stop it", f"systemctl disable --now {unit}")
        return
    if exporter.PACKAGE not in seen.programs:
        install_masked(exporter.PACKAGE)
    text = exporter.unit(deployment, replica_index())
    files.put(name="Write its unit", src=StringIO(text), dest=f"{UNITS}/{unit}", mode="644")
    if monitoring_host.stale(seen, {exporter.UNIT: text}):
        restart(exporter.UNIT)
    else:
        host.noop("node exporter: it runs, as described")
