"""Monitoring of a deployment: written and started by `make monitor-up`, stopped by `monitor-down`.

On this machine the programs run under a supervisor of their own, so that replicas and monitoring
do not share a fate; beside replicas in Docker they are containers; for replicas on servers they
are units of a host of their own (tasks/monitoring_host.py).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files

from cluster import REPOSITORY
from cluster.config.deployment import Deployment
from cluster.health import textfile
from cluster.operate.backup import outcomes
from cluster.runtimes import docker_engine, of
from cluster.runtimes.base import Where
from cluster.runtimes.process import asked, differing, serving
from monitoring import stack
from tasks import monitoring_host
from tasks.support.act import shell
from tasks.support.here import deployment_here, guarded

COMPOSE_FILE = REPOSITORY / "docker-compose.monitoring.yaml"
_STOP_TRIES = 40
_STOP_DELAY_S = 0.5


@deploy("Check what the monitoring needs")
def check() -> None:
    """The replicas' metrics go somewhere, and Prometheus is there. No impact."""
    with guarded():
        stack.check_statsd(deployment_here())
        stack.ports()
    _way().check()


def _check_containers() -> None:
    with guarded():
        docker_engine.check_versions()
        stack.check_inside(deployment_here())
        docker_engine.check_network()


def _check_programs() -> None:
    if stack.find("prometheus") is None:
        raise DeployError(
            "prometheus: expected the program on PATH, found none. "
            f"Fix: apt-get install {stack.PACKAGES}"
        )
    for name in ("blackbox", "host", "process"):
        if stack.find(name) is None:
            logger.warning(f"{stack.PROGRAMS[name][0]} is not installed: its alerts are off")


@deploy("Start the monitoring")
def start() -> None:
    """Write the configuration; start what does not run, and anew what runs with another one."""
    _way().start()


@deploy("Stop the monitoring")
def stop() -> None:
    """Stop the programs; what Prometheus has stored stays."""
    _way().stop()


def _stop_containers() -> None:
    shell("Stop the containers", _compose(deployment_here(), "down"))


def _stop_programs() -> None:
    base = stack.directory(deployment_here())
    pid_file = base / "supervisord.pid"
    supervisor = serving(pid_file, str(base / "supervisord.conf"))
    if not supervisor:
        host.noop("no monitoring runs")
        return
    shell("Stop the monitoring", f"kill {supervisor}")  # which ends its programs, socket or not
    gone = f"test ! -e {shlex.quote(str(pid_file))}"
    shell("Wait until it is gone", gone, _retries=_STOP_TRIES, _retry_delay=_STOP_DELAY_S)


def _prepare() -> Deployment:
    check()
    deployment = deployment_here()
    base = stack.directory(deployment)
    for path in (deployment.state_dir, base, base / "rules"):
        files.directory(name=f"Keep {path.name}/ private", path=str(path), mode="700")
    kept = textfile.directory(deployment)
    files.directory(name="Have a place for metrics in files", path=str(kept), mode="755")
    if known := outcomes.metrics(deployment):
        _write(deployment, {f"{kept.name}/{textfile.writer()}.prom": known})
    return deployment


def _start_programs() -> None:
    deployment = _prepare()
    listen = stack.ports()
    ips = {r.index: str(r.ip) for r in deployment.cluster.replicas}
    read = stack.configuration(deployment, stack.local_addresses(listen), ips)
    wanted = stack.supervised(deployment, listen, read)
    base, running = stack.directory(deployment), _running(deployment)
    stale = differing(base / "supervisord.conf", base / "supervisor.sock", wanted)
    _write(deployment, read)
    _write(deployment, {"supervisord.conf": wanted}, mode="600")
    if running is None:
        shell("Start the monitoring", _tool("supervisord", deployment))
    elif stale is None or stale or not all(running.values()):
        update = _tool("supervisorctl", deployment, "update")
        start_ended = _tool("supervisorctl", deployment, "start", "all")
        shell("Start what has changed, or ended", update, start_ended)
    else:
        host.noop("monitoring: all runs, as described")


def _start_containers() -> None:
    """Containers are reached by their names; replicas at their addresses in the subnet."""
    deployment = _prepare()
    addresses = {
        "collector": "statsd-exporter:9102",
        "blackbox": "blackbox-exporter:9115",
        "host": "node-exporter:9100",
        "process": "process-exporter:9256",
    }
    with guarded():
        inside = {r.index: str(r.ip) for r in deployment.cluster.replicas}
    read = stack.configuration(deployment, addresses, inside)
    _write(deployment, read)
    up = _compose(deployment, "up", "--detach", "--wait", marks=stack.marks(read))
    shell("Start the containers", up)


def _write(deployment: Deployment, wanted: Mapping[str, str], mode: str = "644") -> None:
    for name, text in wanted.items():
        path = stack.directory(deployment) / name
        files.put(name=f"Write {name}", src=StringIO(text), dest=str(path), mode=mode)


def _running(deployment: Deployment) -> Mapping[str, int] | None:
    """Program → its pid, or 0; None where their supervisor does not answer."""
    return asked(
        stack.directory(deployment) / "supervisor.sock",
        "getAllProcessInfo",
        lambda info: {program["name"]: program["pid"] for program in info},
    )


def _tool(program: str, deployment: Deployment, *action: str) -> str:
    path = Path(sys.executable).parent / program
    config = stack.directory(deployment) / "supervisord.conf"
    return shlex.join([str(path), "-c", str(config), *action])


def _compose(
    deployment: Deployment, *action: str, marks: Mapping[str, str] = MappingProxyType({})
) -> str:
    statsd_ip, statsd_port = stack.check_statsd(deployment)
    command = ["docker", "compose", "--project-name", f"{docker_engine.project()}-monitoring"]
    command += ["--file", str(COMPOSE_FILE), "--profile", "monitoring", *action]
    return docker_engine.shell(
        command,
        MONITORING_DIRECTORY=str(stack.directory(deployment)),
        MONITORING_STATSD_IP=statsd_ip,
        MONITORING_STATSD_PORT=str(statsd_port),
        MONITORING_TEXTFILES=str(textfile.directory(deployment)),
        MONITORING_NETWORK=docker_engine.network(),
        MONITORING_PROMETHEUS_PORT=str(stack.ports().prometheus),
        **{f"MONITORING_{name.upper()}_SETTINGS": mark for name, mark in marks.items()},
    )


class _Way(NamedTuple):
    """How a deployment is monitored."""

    check: Callable[[], object]
    start: Callable[[], object]
    stop: Callable[[], object]


#: Replicas on servers have a host of their own for it.
_WAYS: dict[Where, _Way] = {
    "processes": _Way(_check_programs, _start_programs, _stop_programs),
    "containers": _Way(_check_containers, _start_containers, _stop_containers),
    "servers": _Way(monitoring_host.check, monitoring_host.start, monitoring_host.stop),
}


def _way() -> _Way:
    return _WAYS[of(deployment_here()).WHERE]
