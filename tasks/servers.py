"""Replicas on servers of their own: described, started, restarted one at a time, stopped.

What must be done in an order that is only known while it runs goes through one call that acts on
all servers, whichever host pyinfra runs it for.
"""

from __future__ import annotations

from io import StringIO

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.operations import files, python, server, systemd

from cluster import REPOSITORY
from cluster.checks import fitness
from cluster.config.inventory import Deployment
from cluster.health import health, planned_stop
from cluster.operate import rollout
from cluster.runtimes import control, description, image, layout, program
from tasks.support.here import deployment_here, guarded
from tasks.support.observed import observed, replica_index, run


@deploy("Describe the replica")
def describe() -> None:
    """Write its unit, or its Compose file and seccomp profile. Nothing that runs is touched."""
    deployment, index = deployment_here(), replica_index()
    text = _described(deployment, index)
    if deployment.runtime == "systemd":
        files.put(
            name="Write the unit",
            src=StringIO(text),
            dest=layout.unit_path(deployment, index),
            mode="644",
        )
        systemd.service(
            name="Start it when the server starts",
            service=layout.unit(deployment, index),
            running=None,
            enabled=True,
        )
        return
    if deployment.cluster.seccomp != "unconfined":
        files.put(
            name="Write the seccomp profile",
            src=str(REPOSITORY / deployment.cluster.seccomp),
            dest=layout.seccomp_file(),
            mode="644",
        )
    files.put(
        name="Write the Compose file",
        src=StringIO(text),
        dest=layout.compose_file(index),
        mode="644",
    )


@deploy("Start the replicas")
def start() -> None:
    """Start what does not run, all together; what has new settings one at a time, each awaited."""
    deployment = deployment_here()
    seen = observed(deployment)
    stopped = {i for i, s in seen.items() if not fitness.pid_of(deployment, s)}
    stale = {
        i
        for i, s in seen.items()
        if s.settings != description.fingerprint(_described(deployment, i))
    } - stopped
    if not stopped and not stale:
        host.noop("replicas: all run, as described")
        return
    python.call(
        name="Start the replicas",
        function=_start,
        deployment=deployment,
        stopped=stopped,
        stale=stale,
        _run_once=True,
    )


@deploy("Restart the replicas in turn")
def restart() -> None:
    """Restart one replica at a time, the primary last, the next only when the cluster commits."""
    deployment = deployment_here()
    python.call(name="Restart each", function=_restart, deployment=deployment, _run_once=True)


@deploy("Wait until the cluster commits")
def wait_until_committing() -> None:
    """Health level 3: all replicas normal, one transfer committed and read back."""
    deployment = deployment_here()
    python.call(
        name="Wait until the cluster commits",
        function=_await_commit,
        deployment=deployment,
        _run_once=True,
    )


@deploy("Stop the replica")
def stop() -> None:
    """Stop it, and keep it from starting with the server; unit, container and data stay."""
    deployment, index = deployment_here(), replica_index()
    if not fitness.pid_of(deployment, observed(deployment)[index]):
        host.noop("it does not run")
        return
    if deployment.cluster.statsd:
        python.call(
            name="Tell the alerts that it is planned",
            function=planned_stop.announce_of,
            deployment=deployment,
            is_planned=True,
            _run_once=True,
        )
    server.shell(name="Stop the replica", commands=[control.of(deployment, index).stop])
    if deployment.runtime == "systemd":
        systemd.service(
            name="Do not start it with the server",
            service=layout.unit(deployment, index),
            running=None,
            enabled=False,
        )


def _described(deployment: Deployment, index: int) -> str:
    with guarded():
        if deployment.runtime == "systemd":
            path = layout.program(deployment, program.to_ship(deployment).sha256)
            return description.unit(deployment, index, path)
        return description.compose(deployment, index, image.identity(deployment))


def _start(deployment: Deployment, stopped: set[int], stale: set[int]) -> None:
    def step(index: int) -> None:
        run(index, _renew_command(deployment, index))

    with guarded():
        act = rollout.of_deployment(deployment, step, tell=_tell)
        rollout.renew("new settings", stopped, stale, act)


def _restart(deployment: Deployment) -> None:
    def step(index: int) -> None:
        replica = control.of(deployment, index)
        run(index, f"{replica.stop} && {replica.start}")

    with guarded():
        everyone = {replica.index for replica in deployment.cluster.replicas}
        act = rollout.of_deployment(deployment, step, tell=_tell)
        rollout.roll("restart", everyone, act)


def _renew_command(deployment: Deployment, index: int) -> str:
    """Let it run as described, whether it ran before or not."""
    if deployment.runtime == "systemd":
        # Whoever wrote the unit may have been interrupted before systemd was told.
        return f"systemctl daemon-reload && systemctl restart {layout.unit(deployment, index)}"
    return f"docker compose --file {layout.compose_file(index)} up --detach --no-build"


def _await_commit(deployment: Deployment) -> None:
    with guarded():
        health.wait(deployment, on_progress=_tell)
    planned_stop.announce_of(deployment, is_planned=False)


def _tell(said: str) -> None:
    logger.info(f"    {said}")
