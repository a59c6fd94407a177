"""The programs that monitor a deployment: which, where they listen, Prometheus' settings. Pure.

Everything is written below ``<state directory>/monitoring/``. On this machine the programs run
under a supervisor of their own; beside replicas in Docker they are containers
(``docker-compose.monitoring.yaml``). Exporters that are not installed are left out, and named.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cluster import REPOSITORY
from cluster.config import PREFIX
from cluster.config.deployment import Deployment
from cluster.health import textfile
from cluster.refusal import Refusal
from cluster.runtimes import of
from cluster.runtimes.base import rendered
from cluster.runtimes.servers import SETTINGS_VARIABLE

FILES = REPOSITORY / "files" / "monitoring"
PORTS_VARIABLE = "WALLET_SERVICE_MONITORING_PORTS"
#: Debian's names first: Docker Hub's images and self-made installations have the short ones.
PROGRAMS = {
    "prometheus": ("prometheus",),
    "blackbox": ("prometheus-blackbox-exporter", "blackbox_exporter"),
    "host": ("prometheus-node-exporter", "node_exporter"),
    "process": ("prometheus-process-exporter", "process-exporter"),
}
#: What each reads of ours, beside what is written for the cluster: a file, or a directory of them.
_READS = {
    "collector": Path(__file__).parent / "collector",
    "prometheus": FILES / "rules",
    "blackbox": FILES / "blackbox.yml",
    "process": FILES / "process.yml",
    "statsd": FILES / "statsd_mapping.yml",
    "grafana": FILES / "grafana",
}
PACKAGES = " ".join(names[0] for names in PROGRAMS.values())


@dataclass(frozen=True)
class Ports:
    """Where each program listens on 127.0.0.1: the exporters' usual ports."""

    prometheus: int = 9090
    collector: int = 9102
    blackbox: int = 9115
    host: int = 9100
    process: int = 9256


def ports(environ: Mapping[str, str] = os.environ) -> Ports:
    """The ports; five of your own, in the order of ``Ports``, from the environment.

    Raises Refusal.
    """
    text = environ.get(PORTS_VARIABLE, "")
    if not text:
        return Ports()
    numbers = text.split(",")
    if len(numbers) != 5 or not all(n.isdigit() and 0 < int(n) < 65536 for n in numbers):
        raise Refusal(
            PORTS_VARIABLE,
            expected="five ports: prometheus,collector,blackbox,host,process",
            found=text,
            fix="unset it, or give all five",
        )
    return Ports(*map(int, numbers))


def directory(deployment: Deployment) -> Path:
    """Where configuration, data and logs of the monitoring are."""
    return deployment.state_dir / "monitoring"


def check_statsd(deployment: Deployment) -> tuple[str, int]:
    """The StatsD address that replicas send to. Raises Refusal when they could not reach it."""
    statsd = deployment.cluster.statsd
    has_own_network = of(deployment).HAS_OWN_NETWORK
    where, example = "an address on loopback", "127.0.0.1:8125"
    if has_own_network:
        where = f"a free address of {PREFIX}SUBNET (loopback is the container's own)"
        example = "172.20.0.20:8125"
    host, _, port = statsd.rpartition(":")
    if not statsd or has_own_network == host.startswith("127."):
        raise Refusal(
            f"{PREFIX}STATSD",
            expected=f"where the replicas' metrics go: {where}, such as {example}",
            found=statsd or "nothing",
            fix=f"set it to {example}, then `make up {deployment.named}` (one replica restarts at "
            "a time)",
        )
    return host, int(port)


def check_inside(deployment: Deployment) -> None:
    """In Docker, check that the exporter can have the StatsD address. Raises Refusal."""
    cluster = deployment.cluster
    host = IPv4Address(cluster.statsd.rpartition(":")[0])
    taken = {cluster.subnet.network_address + 1, *(r.ip for r in cluster.replicas)}
    if host not in cluster.subnet or host in taken:
        raise Refusal(
            f"{PREFIX}STATSD",
            expected=f"a free address of {cluster.subnet}, for the exporter",
            found="the gateway's or a replica's" if host in taken else host,
            fix=f"choose another one there, then `make up {deployment.named}` (one replica "
            "restarts at a time)",
        )


def find(name: str) -> str | None:
    """The program on PATH."""
    return next((found for known in PROGRAMS[name] if (found := shutil.which(known))), None)


def prometheus_values(
    deployment: Deployment, addresses: Mapping[str, str], replica_ips: Mapping[int, str]
) -> dict[str, Any]:
    """What ``prometheus.yml.j2`` and ``rules/expected.yml.j2`` are filled with.

    ``addresses``: scrape address of the collector and of each exporter that is there; for hosts
    there may be several, with commas.
    ``replica_ips``: where the port of each replica is probed.
    """
    return {
        "label": deployment.label,
        "cluster": f"{deployment.cluster.id:032x}",
        "whose": deployment.whose,
        "inventory": shlex.quote(deployment.file),
        "replicas_emit": not deployment.is_emulator,
        "addresses": {n: addresses.get(n, "") for n in ("collector", *PROGRAMS)},
        # On the monitoring host: relative to the file itself.
        "rules": {"process": str(FILES / "rules"), "compose": "/etc/prometheus"}.get(
            deployment.runtime, "rules"
        ),
        "alertmanagers": deployment.alertmanagers,
        "replicas": [
            {"index": r.index, "address": f"{replica_ips[r.index]}:{r.port}"}
            for r in deployment.cluster.replicas
        ],
    }


def configuration(
    deployment: Deployment, addresses: Mapping[str, str], replica_ips: Mapping[int, str]
) -> dict[str, str]:
    """File → content of what Prometheus reads of this cluster; for the rest see above."""
    values = prometheus_values(deployment, addresses, replica_ips)
    names = ("prometheus.yml", "rules/expected.yml")
    return {name: filled(f"{name}.j2", values) for name in names}


def filled(template: str, values: Mapping[str, Any]) -> str:
    """One of our templates, which are written for trimmed blocks."""
    return rendered((FILES / template).read_text(), values, trim_blocks=True)


def marks(written: Mapping[str, str]) -> dict[str, str]:
    """Program → fingerprint of all that it reads; ``written`` is what Prometheus reads.

    It is part of what a program is started with, so that its supervisor, or Compose, compares what
    *runs*: whoever wrote a file may have been stopped before a program has read it.
    """

    def mark(name: str, place: Path) -> str:
        files = sorted(f for f in (place, *place.rglob("*")) if f.is_file() and f.suffix != ".pyc")
        read = [file.read_text() for file in files]
        read += written.values() if name == "prometheus" else ()
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:16]

    return {name: mark(name, place) for name, place in _READS.items()}


def supervised(deployment: Deployment, listen: Ports, written: Mapping[str, str]) -> str:
    """The configuration of this machine's supervisor; '%' is doubled, as it expands that."""
    values = {
        "label": deployment.label,
        "directory": str(directory(deployment)).replace("%", "%%"),
        "repository": str(REPOSITORY).replace("%", "%%"),
        "programs": programs(deployment, listen),
        "settings_variable": SETTINGS_VARIABLE,
        "marks": marks(written),
    }
    return filled("supervisord.conf.j2", values)


def local_addresses(listen: Ports, which: Callable[[str], str | None] = find) -> dict[str, str]:
    """Scrape addresses on this machine; exporters that are not installed are left out."""
    there = [name for name in ("blackbox", "host", "process") if which(name)]
    return {name: _at(getattr(listen, name)) for name in ("collector", *there)}


def programs(
    deployment: Deployment, listen: Ports, which: Callable[[str], str | None] = find
) -> list[dict[str, str]]:
    """The programs that the supervisor runs on this machine: name and command of each."""
    base = directory(deployment)
    host, port = check_statsd(deployment)
    listens = {name: f"--web.listen-address={_at(getattr(listen, name))}" for name in PROGRAMS}
    store = [f"--storage.tsdb.path={base / 'data'}", "--storage.tsdb.retention.time=15d"]
    options = {
        "prometheus": [f"--config.file={base / 'prometheus.yml'}", *store, listens["prometheus"]],
        "blackbox": [f"--config.file={FILES / 'blackbox.yml'}", listens["blackbox"]],
        "host": [listens["host"], "--no-collector.systemd"],
        "process": [f"-config.path={FILES / 'process.yml'}", listens["process"][1:]],
    }
    ours = [sys.executable, "-m", "monitoring.collector.collector"]
    collects = [f"--statsd={host}:{port}", f"--listen={_at(listen.collector)}"]
    commands = {"collector": [*ours, *collects, f"--textfiles={textfile.directory(deployment)}"]}
    commands |= {n: [program, *options[n]] for n in options if (program := which(n))}
    return [
        {"name": name, "command": shlex.join(command).replace("%", "%%")}
        for name, command in commands.items()
    ]


def _at(port: int) -> str:
    return f"127.0.0.1:{port}"
