"""The monitoring host of replicas on servers: what runs there, and what that needs.

/etc/systemd/system/tigerbeetle-{collector,prometheus,blackbox}.service
/etc/tigerbeetle/monitoring/                prometheus.yml, blackbox.yml, rules/
/usr/local/lib/tigerbeetle/monitoring/      our collector, one file
/var/lib/tigerbeetle-prometheus/            what Prometheus has stored
/var/lib/tigerbeetle-monitoring/            metrics in files, see cluster.health.textfile

Pure, except ``of_inventory``.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NoReturn

import prometheus_client

from cluster import REPOSITORY, pyz
from cluster.checks import script
from cluster.checks.firewall import EXPORTER_PORT
from cluster.checks.rules import PYTHON_MIN, version
from cluster.checks.server import SYSTEMD_MIN
from cluster.config import inventory, servers
from cluster.config.deployment import Deployment
from cluster.health.textfile import DIRECTORY_THERE
from cluster.refusal import Refusal, told
from cluster.runtimes.layout import ETC, PROGRAMS
from cluster.runtimes.servers import SETTINGS_VARIABLE, fingerprint
from monitoring import stack
from monitoring.stack import FILES, Ports

NAME = "monitoring"
DIRECTORY = f"{ETC}/monitoring"
COLLECTOR = f"{PROGRAMS}/monitoring/collector"
STATE_DIRECTORY = "tigerbeetle-prometheus"

#: Debian's packages, each with the program and the service of the same name.
PACKAGES = ("prometheus", "prometheus-blackbox-exporter")
UNITS = ("collector", "prometheus", "blackbox")

_LOOPBACK = IPv4Address("127.0.0.1")
#: The limits of programs that need more than the others.
_MEMORY_MAX = {"prometheus": "1G"}


@dataclass(frozen=True)
class Observation:
    """A host as ``files/monitoring/observe.sh``, run there, describes it."""

    systemd: str = ""
    python: str = ""
    addresses: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    listening: frozenset[tuple[str, str]] = frozenset()  # ("udp", "0.0.0.0:8125")
    running: Mapping[str, str] = field(default_factory=dict)  # unit → fingerprint of its settings
    cluster: str = ""  # the one that the configuration there is for
    has_grafana: bool = False


def of_inventory(inventory_file: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """The pyinfra host of the monitoring: this machine, or the monitoring host of servers.

    An inventory of servers that names none ends the program with exit code 2.
    """
    with told():
        deployment = inventory.read(inventory_file)
        reached = place(deployment)
    if reached is None:
        described = {"deployment": deployment.name, "engine": deployment.engine}
        of = {"runtime": deployment.runtime, "inventory_file": str(deployment.inventory)}
        return [("@local", described | of)]
    data = {k: v for k, v in reached.model_dump(by_alias=True).items() if v != ""}
    return [(NAME, {**data, "monitors": str(deployment.inventory)})]


def place(deployment: Deployment) -> servers.Host | None:
    """The monitoring host; None for this machine. Raises Refusal where servers have none."""
    if deployment.monitoring is None and deployment.settings:
        raise Refusal(
            "monitoring_host",
            expected="the SSH name of a host for the monitoring",
            found="nothing",
            fix="name one in the inventory; inventories/production.example.py explains it",
        )
    return deployment.monitoring


def command() -> str:
    """The shell line that makes the host print its observation."""
    return script.command(FILES / "observe.sh")


def parse(lines: Sequence[str]) -> Observation:
    """What the script printed."""
    said = script.Printed(lines)
    return Observation(
        systemd=said.one("systemd"),
        python=said.one("python"),
        addresses=frozenset(values[0] for values in said.each("address")),
        programs=frozenset(values[0] for values in said.each("program")),
        listening=frozenset((v[0], v[1]) for v in said.each("listening")),
        running={v[0]: " ".join(v[1:]) for v in said.each("running")},
        cluster=said.one("cluster"),
        has_grafana=said.one("grafana") == "yes",
    )


def check(deployment: Deployment, seen: Observation, listen: Ports) -> None:
    """Check that the host can monitor this cluster, and monitors no other one. Raises Refusal."""
    if not seen.systemd or int(seen.systemd) < SYSTEMD_MIN:
        _refuse(f"systemd {SYSTEMD_MIN} or newer", seen.systemd or "none", "use Debian 12 or newer")
    if version(seen.python) < PYTHON_MIN:
        _refuse("Python 3.11 or newer, for the collector", seen.python or "none", "install python3")
    if "apt-get" not in seen.programs and not seen.programs.issuperset(PACKAGES):
        _refuse(
            f"{' and '.join(PACKAGES)} on PATH, or apt-get to install them",
            "neither",
            "install them, or use a Debian or Ubuntu host",
        )
    statsd, port = servers.monitoring_address(deployment.cluster)
    bind = deployment.of_servers.monitoring_bind
    for setting, ip in (("LU_CFG_TIGERBEETLE_STATSD", statsd), ("monitoring_bind", bind)):
        if str(ip) not in seen.addresses:
            _refuse(
                f"the address {ip} of {setting}",
                ", ".join(sorted(seen.addresses)) or "none",
                f"correct {setting}, or monitoring_host",
            )
    wanted = f"{deployment.cluster.id:032x}"
    if seen.running and seen.cluster not in ("", wanted):
        _refuse(
            "no monitoring of another cluster",
            f"that of cluster {seen.cluster}",
            "name another host, or stop that one: make monitor-down with its own INVENTORY=",
        )
    places = {
        "collector": [("udp", statsd, port), ("tcp", _LOOPBACK, listen.collector)],
        "prometheus": [("tcp", bind, listen.prometheus)],
        "blackbox": [("tcp", _LOOPBACK, listen.blackbox)],
    }
    for unit in places.keys() - seen.running.keys():
        for protocol, ip, number in places[unit]:
            check_free("monitoring host", seen, protocol, ip, number)


def check_free(what: str, seen: Observation, protocol: str, ip: IPv4Address, port: int) -> None:
    """Check that nothing listens on the ports that the programs need. Raises Refusal."""
    for place in (f"{ip}:{port}", f"0.0.0.0:{port}", f"*:{port}", f"[::]:{port}"):
        if (protocol, place) in seen.listening:
            raise Refusal(
                f"{what}: expected {protocol} {ip}:{port} to be free, found somebody listening at "
                f"{place}. Fix: stop it, or give the monitoring another port"
            )


def missing(seen: Observation) -> list[str]:
    """The packages to install."""
    return [package for package in PACKAGES if package not in seen.programs]


def configuration(deployment: Deployment, listen: Ports) -> dict[str, str]:
    """File below ``DIRECTORY`` → content, for every file that the programs read."""
    addresses = {
        "collector": f"{_LOOPBACK}:{listen.collector}",
        "blackbox": f"{_LOOPBACK}:{listen.blackbox}",
    }
    if deployment.has_node_exporters:
        servers_ = sorted({r.ip for r in deployment.cluster.replicas})
        addresses["host"] = ",".join(f"{ip}:{EXPORTER_PORT}" for ip in servers_)
    ips = {r.index: str(r.ip) for r in deployment.cluster.replicas}
    return {
        **stack.configuration(deployment, addresses, ips),
        "rules/states.yml": (FILES / "rules" / "states.yml").read_text(),
        "rules/alerts.yml": (FILES / "rules" / "alerts.yml").read_text(),
        "blackbox.yml": (FILES / "blackbox.yml").read_text(),
    }


def units(deployment: Deployment, listen: Ports) -> dict[str, str]:
    """Unit without prefix and suffix → its file. It changes when its program's files change."""
    statsd, port = servers.monitoring_address(deployment.cluster)
    collects = [f"--statsd={statsd}:{port}", f"--listen={_LOOPBACK}:{listen.collector}"]
    collects.append(f"--textfiles={DIRECTORY_THERE}")
    store = f"--storage.tsdb.path=/var/lib/{STATE_DIRECTORY}"
    stores = [store, "--storage.tsdb.retention.time=15d"]
    listens = f"--web.listen-address={prometheus_address(deployment, listen)}"
    reading = f"--config.file={DIRECTORY}/"
    probes = [f"{reading}blackbox.yml", f"--web.listen-address={_LOOPBACK}:{listen.blackbox}"]
    commands = {
        "collector": ["/usr/bin/python3", COLLECTOR, *collects],
        "prometheus": ["/usr/bin/prometheus", f"{reading}prometheus.yml", *stores, listens],
        "blackbox": ["/usr/bin/prometheus-blackbox-exporter", *probes],
    }
    read = configuration(deployment, listen)
    reads = {
        "collector": collector().hex(),
        "prometheus": json.dumps({k: v for k, v in read.items() if k != "blackbox.yml"}),
        "blackbox": read["blackbox.yml"],
    }
    return {name: unit_file(deployment, name, commands[name], reads=reads[name]) for name in UNITS}


def stale(seen: Observation, written: Mapping[str, str]) -> list[str]:
    """The units that do not run, or run with other settings than those of ``written``."""
    return [n for n, text in written.items() if seen.running.get(n) != fingerprint(text)]


def unit(name: str) -> str:
    """The full name of a unit."""
    return f"tigerbeetle-{name}.service"


def collector() -> bytes:
    """Our collector and ``prometheus-client``, as locked, in one file that any Python 3.11 runs."""
    library = Path(prometheus_client.__file__).parent
    files = {"monitoring/__init__.py": b"", **pyz.sources(REPOSITORY, "monitoring/collector")}
    files |= pyz.sources(library.parent, library.name)
    return pyz.pack("monitoring.collector.collector", files)


def grafana(deployment: Deployment, listen: Ports) -> dict[str, str]:
    """Path → content: data source and dashboards, for Debian's package of Grafana."""
    ours, theirs = FILES / "grafana", "/etc/grafana/provisioning"
    source = (ours / "provisioning/datasources/prometheus.yml").read_text()
    provider = (ours / "provisioning/dashboards/dashboards.yml").read_text()
    url = f"http://{prometheus_address(deployment, listen)}"
    boards = "/var/lib/grafana/dashboards/tigerbeetle"
    return {
        f"{theirs}/datasources/tigerbeetle.yml": source.replace("http://prometheus:9090", url),
        f"{theirs}/dashboards/tigerbeetle.yml": provider.replace("/etc/grafana/dashboards", boards),
        **{f"{boards}/{f.name}": f.read_text() for f in sorted(ours.glob("dashboards/*.json"))},
    }


def prometheus_address(deployment: Deployment, listen: Ports) -> str:
    """Where Prometheus listens on its host, ``IP:PORT``."""
    return f"{deployment.of_servers.monitoring_bind}:{listen.prometheus}"


def unit_file(
    deployment: Deployment,
    name: str,
    command: Sequence[str],
    *,
    reads: str = "",
    measures_the_host: bool = False,
) -> str:
    """The hardened unit that runs ``command``; it changes when the program's files change."""
    source = (FILES / "program.service.j2").read_text()
    values = {
        "label": deployment.label,
        "name": name,
        "command": shlex.join(command).replace("%", "%%"),
        "state_directory": STATE_DIRECTORY if name == "prometheus" else "",
        "memory_max": _MEMORY_MAX.get(name, "256M"),
        "measures_the_host": measures_the_host,
        "settings_variable": SETTINGS_VARIABLE,
    }
    made_of = json.dumps([source, values, reads], sort_keys=True)
    mark = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return stack.filled("program.service.j2", {**values, "fingerprint": mark})


def _refuse(expected: str, found: str, fix: str) -> NoReturn:
    raise Refusal(f"monitoring host: expected {expected}, found {found}. Fix: {fix}")
