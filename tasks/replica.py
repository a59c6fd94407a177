"""Replicas as processes: started under a supervisor, restarted one at a time, stopped together."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files, python, server

from cluster import REPOSITORY, config
from cluster.config.inventory import Deployment
from cluster.health import health, planned_stop
from cluster.operate import rollout
from cluster.runtimes import processes
from cluster.tigerbeetle import binary
from tasks import compose, servers
from tasks.support.here import deployment_here, guarded

_TEMPLATE = REPOSITORY / "files" / "tigerbeetle" / "supervisord.conf.j2"
_STOP_TRIES = 40
_STOP_DELAY_S = 0.5


@deploy("Start the replicas")
def start() -> None:
    """Start what does not run. A changed setting restarts one replica at a time, each awaited."""
    deployment = deployment_here()
    states = processes.states(deployment)
    with guarded():
        values = processes.supervisor_values(deployment, binary.command(deployment))
    written = files.template(
        name="Write the supervisor's configuration",
        src=str(_TEMPLATE),
        dest=str(processes.config_path(deployment)),
        mode="600",
        **values,
    )
    if states is None:
        # Without the token: a replica has no use for it, and /proc shows every environment.
        unset = f"env --unset={config.PREFIX}AUTH_TOKEN "
        _shell("Start the supervisor and its replicas", unset + _supervisord(deployment))
        return
    if written.will_change:
        python.call(
            name="Give each replica its new settings", function=_renew, deployment=deployment
        )
        return
    for index, process in states.items():
        if not process.pid:
            program = processes.program_name(index)
            _shell(f"Start replica {index}", _supervisorctl(deployment, "start", program))


@deploy("Restart the replicas in turn")
def restart() -> None:
    """Restart one replica at a time, the primary last, the next only when the cluster commits."""
    deployment = deployment_here()
    if deployment.runtime == "compose":
        compose.restart()
        return
    if deployment.servers:
        servers.restart()
        return
    states = processes.states(deployment) or {}
    if len(states) < len(deployment.cluster.replicas):
        raise DeployError(
            f"restart: expected every replica under its supervisor, found {len(states)} of "
            f"{len(deployment.cluster.replicas)}. Fix: make up INVENTORY="
            f"{deployment.file}"
        )
    python.call(name="Restart each replica", function=_restart, deployment=deployment)


@deploy("Wait until the cluster commits")
def wait_until_committing() -> None:
    """Health level 3: all replicas normal, one transfer committed and read back."""
    python.call(
        name="Wait until the cluster commits", function=_await_commit, deployment=deployment_here()
    )


@deploy("Stop the replicas")
def stop() -> None:
    """Stop supervisor and replicas, orphans too. Data stays. Nothing to do when none runs."""
    deployment = deployment_here()
    if deployment.runtime == "compose":
        compose.stop()
        return
    if deployment.servers:
        servers.stop()
        return
    for index, pid in processes.orphans(deployment).items():
        _shell(f"Stop replica {index}, left by a dead supervisor", f"kill {pid}")
    if processes.states(deployment) is None:
        host.noop("no supervisor runs")
        return
    if deployment.cluster.statsd:
        python.call(
            name="Tell the alerts that it is planned",
            function=planned_stop.announce_all,
            cluster=deployment.cluster,
            is_planned=True,
        )
    _shell("Stop the replicas", _supervisorctl(deployment, "stop", "all"))
    _shell("Stop the supervisor", _supervisorctl(deployment, "shutdown"))
    server.shell(
        name="Wait until the supervisor is gone",
        commands=[f"test ! -e {shlex.quote(str(deployment.state_dir / 'supervisord.pid'))}"],
        _retries=_STOP_TRIES,
        _retry_delay=_STOP_DELAY_S,
    )


def _renew(deployment: Deployment) -> None:
    """``update`` stops, forgets and starts a program whose settings have changed."""
    states = processes.states(deployment) or {}
    running = {index for index, process in states.items() if process.pid}

    def step(index: int) -> None:
        _control(deployment, "update", index)
        if (processes.states(deployment) or {})[index].state in ("FATAL", "EXITED", "STOPPED"):
            _control(deployment, "start", index)  # `update` leaves alone what is as configured

    with guarded():
        act = rollout.of_deployment(deployment, step, tell=_tell)
        rollout.renew("new settings", states.keys() - running, running, act)


def _restart(deployment: Deployment) -> None:
    def step(index: int) -> None:
        _control(deployment, "restart", index)

    with guarded():
        act = rollout.of_deployment(deployment, step, tell=_tell)
        rollout.roll("restart", {r.index for r in deployment.cluster.replicas}, act)


def _control(deployment: Deployment, action: str, index: int) -> None:
    """Have supervisor do it now: the order is only known while the deploy runs."""
    command = _supervisorctl(deployment, action, processes.program_name(index))
    done, output = host.run_shell_command(command)
    if not done:
        raise DeployError(f"replica {index}: `{command}` failed: {output.output}")


def _tell(said: str) -> None:
    logger.info(f"    {said}")


def _await_commit(deployment: Deployment) -> None:
    with guarded():
        health.wait(deployment, on_progress=_tell)
    planned_stop.announce_all(deployment.cluster, is_planned=False)


def _shell(name: str, command: str, **arguments: Any) -> None:
    server.shell(name=name, commands=[command], **arguments)


def _supervisord(deployment: Deployment) -> str:
    return _tool("supervisord", deployment)


def _supervisorctl(deployment: Deployment, *action: str) -> str:
    return _tool("supervisorctl", deployment, *action)


def _tool(program: str, deployment: Deployment, *action: str) -> str:
    """The program of this environment, quoted for a shell."""
    path = Path(sys.executable).parent / program
    return shlex.join([str(path), "-c", str(processes.config_path(deployment)), *action])
