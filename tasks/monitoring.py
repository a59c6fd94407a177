"""Monitoring of a deployment: written and started by `make monitor-up`, stopped by `monitor-down`.

On this machine the programs run under a supervisor of their own, so that replicas and monitoring
do not share a fate; beside replicas in Docker they are containers; for replicas on servers they
are units of a host of their own (tasks/monitoring_host.py).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files

from cluster import REPOSITORY
from cluster.config.deployment import Deployment
from cluster.runtimes import docker_engine, of
from cluster.runtimes.base import Where
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
        stack.check_inside(deployment_here().cluster)
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
    """Write the configuration; start what does not run; reload Prometheus when it has changed."""
    _way().start()


@deploy("Stop the monitoring")
def stop() -> None:
    """Stop the programs; what Prometheus has stored stays."""
    _way().stop()


def _stop_containers() -> None:
    shell("Stop the containers", _compose(deployment_here(), "down"))


def _stop_programs() -> None:
    deployment = deployment_here()
    if not _control(deployment).exists():
        host.noop("no monitoring runs")
        return
    shell("Stop the monitoring", _tool("supervisorctl", deployment, "shutdown"))
    pid_file = stack.directory(deployment) / "supervisord.pid"
    gone = f"test ! -e {shlex.quote(str(pid_file))}"
    shell("Wait until it is gone", gone, _retries=_STOP_TRIES, _retry_delay=_STOP_DELAY_S)


def _prepare() -> Deployment:
    check()
    deployment = deployment_here()
    base = stack.directory(deployment)
    for path in (deployment.state_dir, base, base / "rules"):
        files.directory(name=f"Keep {path.name}/ private", path=str(path), mode="700")
    return deployment


def _start_programs() -> None:
    deployment = _prepare()
    base, listen = stack.directory(deployment), stack.ports()
    ips = {r.index: str(r.ip) for r in deployment.cluster.replicas}
    changed = _write_prometheus(deployment, stack.local_addresses(listen), ips)
    supervised = files.template(
        name="Write the supervisor's configuration",
        src=str(stack.FILES / "supervisord.conf.j2"),
        dest=str(base / "supervisord.conf"),
        mode="600",
        label=deployment.label,
        directory=str(base).replace("%", "%%"),
        repository=str(REPOSITORY).replace("%", "%%"),
        programs=stack.programs(deployment, listen),
    )
    if not _control(deployment).exists():
        shell("Start the monitoring", _tool("supervisord", deployment))
    elif supervised.will_change:
        shell("Start what has changed", _tool("supervisorctl", deployment, "update"))
    elif changed:
        shell(
            "Let Prometheus read its configuration again",
            _tool("supervisorctl", deployment, "signal", "HUP", "prometheus"),
        )


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
    changed = _write_prometheus(deployment, addresses, inside)
    shell("Start the containers", _compose(deployment, "up", "--detach", "--wait"))
    if changed:  # a mounted file that was replaced is only seen from a new start on
        shell(
            "Let Prometheus read its configuration", _compose(deployment, "restart", "prometheus")
        )


def _write_prometheus(
    deployment: Deployment, addresses: dict[str, str], replica_ips: dict[int, str]
) -> bool:
    base = stack.directory(deployment)
    values = stack.prometheus_values(deployment, addresses, replica_ips)
    written = [
        files.template(
            name=f"Write {target}",
            src=str(stack.FILES / source),
            dest=str(base / target),
            mode="644",
            **values,
        )
        for source, target in (
            ("prometheus.yml.j2", "prometheus.yml"),
            ("rules/expected.yml.j2", "rules/expected.yml"),
        )
    ]
    return any(operation.will_change for operation in written)


def _control(deployment: Deployment) -> Path:
    return stack.directory(deployment) / "supervisor.sock"


def _tool(program: str, deployment: Deployment, *action: str) -> str:
    path = Path(sys.executable).parent / program
    config = stack.directory(deployment) / "supervisord.conf"
    return shlex.join([str(path), "-c", str(config), *action])


def _compose(deployment: Deployment, *action: str) -> str:
    statsd_ip, statsd_port = stack.check_statsd(deployment)
    command = ["docker", "compose", "--project-name", f"{docker_engine.project()}-monitoring"]
    command += ["--file", str(COMPOSE_FILE), "--profile", "monitoring", *action]
    return docker_engine.shell(
        command,
        MONITORING_DIRECTORY=str(stack.directory(deployment)),
        MONITORING_STATSD_IP=statsd_ip,
        MONITORING_STATSD_PORT=str(statsd_port),
        MONITORING_NETWORK=docker_engine.network(),
        MONITORING_PROMETHEUS_PORT=str(stack.ports().prometheus),
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
