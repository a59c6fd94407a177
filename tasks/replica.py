"""Replicas: described, started, restarted one at a time, stopped; however they are run.

What must be done in an order that is only known while it runs goes through one call that acts on
all replicas, whichever host pyinfra runs it for.
"""

from __future__ import annotations

from io import StringIO

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from cluster.checks import rules
from cluster.checks.facts import limited
from cluster.config.deployment import Deployment
from cluster.health import health, planned_stop
from cluster.operate import rollout
from cluster.operate.backup import freeze
from cluster.runtimes import of
from cluster.runtimes.base import Todo
from tasks.support.act import call_once, shell, tell
from tasks.support.here import away_here, deployment_here, guarded, indexes_here
from tasks.support.observed import act, marks, observed


@deploy("Describe the replicas")
def describe() -> None:
    """Write the files that they are run by. Nothing that runs is touched."""
    deployment = deployment_here()
    runtime = of(limited(deployment, observed(deployment)))
    with guarded():
        described = {p: t for i in indexes_here() for p, t in runtime.description(i).items()}
    for path, text in described.items():
        files.put(
            name=f"Write {path}", src=StringIO(text), dest=path, mode=runtime.DESCRIPTION_MODE
        )


@deploy("Start the replicas")
def start() -> None:
    """Start what does not run. A changed setting restarts one replica at a time, each awaited."""
    deployment = deployment_here()
    with guarded():
        runtime = of(limited(deployment, observed(deployment)))
        todo = runtime.todo(marks(deployment))
    describe()
    if todo is not None and not todo:
        host.noop("replicas: all run, as configured")
        return
    call_once("Start the replicas", _start, deployment=deployment, planned=todo)


@deploy("Restart the replicas in turn")
def restart() -> None:
    """Restart one replica at a time, the primary last, the next only when the cluster commits."""
    deployment = deployment_here()
    with guarded():
        of(deployment).check_whole()
        rules.check(deployment, observed(deployment), only=("memory", "ports"))
    call_once("Restart each replica", _restart, deployment=deployment)


@deploy("Wait until the cluster commits")
def wait_until_committing() -> None:
    """Health level 3: all replicas normal, one transfer committed and read back."""
    call_once("Wait until the cluster commits", _await_commit, deployment=deployment_here())


@deploy("Stop the replicas")
def stop() -> None:
    """Stop them for good; the data stays. The alerts are told first: whoever does it means it.

    ``away`` in the host data are the replicas whose servers are left out.
    """
    deployment = deployment_here()
    with guarded():
        running = marks(deployment, away_here()).keys() & indexes_here()
        commands = of(deployment).stop_all(running)
    if not commands:
        host.noop("no replica runs")
        return
    if deployment.cluster.statsd:
        call_once(
            "Tell the alerts that it is planned",
            planned_stop.announce_of,
            deployment=deployment,
            is_planned=True,
        )
    shell("Stop the replicas", *commands)


def _start(deployment: Deployment, planned: Todo | None) -> None:
    runtime = of(deployment)
    with guarded():
        todo = planned or runtime.todo({})
        assert todo is not None  # noqa: S101 - by now it is known
        actions = rollout.of_deployment(deployment, lambda i: act(i, runtime.renew(i)), tell)
        rollout.renew("new settings", todo.stopped, todo.stale, actions)


def _restart(deployment: Deployment) -> None:
    runtime = of(deployment)
    with guarded():
        everyone = {replica.index for replica in deployment.cluster.replicas}
        actions = rollout.of_deployment(deployment, lambda i: act(i, runtime.restart(i)), tell)
        rollout.roll("restart", everyone, actions)


def _await_commit(deployment: Deployment) -> None:
    with guarded():
        health.wait(deployment, on_progress=tell)
        tell(freeze.foreseen(deployment))
    planned_stop.announce_of(deployment, is_planned=False)
