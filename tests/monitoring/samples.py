"""Servers that a monitoring host watches, and such a host before anything was done to it."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cluster import config
from cluster.config import servers
from cluster.config.deployment import Deployment
from cluster.config.servers import Server, Settings
from monitoring.host import Observation
from monitoring.stack import Ports

IP = "10.1.0.20"
PORTS = Ports()


def deployment(**settings: Any) -> Deployment:
    """Three replicas on servers, watched by a fourth host."""
    read = Settings.model_validate(
        {"env_file": "x", "runtime": "systemd", "monitoring_host": "watch.example.com"} | settings
    )
    cluster = config.load(environ={f"{config.PREFIX}STATSD": f"{IP}:8125"})
    replicas = tuple(
        r.model_copy(update={"ip": IPv4Address(f"10.1.0.1{r.index}"), "port": 3000})
        for r in cluster.replicas
    )
    server = Server.of({"replica": 0, "ssh_hostname": "a", "ssh_user": "admin", "_sudo": True})
    return Deployment(
        name="production",
        engine=read.engine,
        runtime="systemd",
        cluster=cluster.model_copy(update={"replicas": replicas, "id": 0xAB}),
        state_dir=Path("/nowhere"),
        servers=(server,),
        settings=read,
        monitoring=servers.monitoring_host(read, server),
    )


OF = deployment()
EXPORTING = deployment(node_exporter=True)
BARE = Observation(
    systemd="252",
    python="3.11.2",
    addresses=frozenset({"127.0.0.1", IP}),
    programs=frozenset({"apt-get"}),
    listening=frozenset({("tcp", "0.0.0.0:22")}),
    running={},
)
