"""Replicas in Docker on this machine: formatted once, started, restarted one at a time, stopped.

`docker-compose.tb.yaml` is the one description of them; these tasks only drive it.
"""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.operations import python

from cluster import config
from cluster.checks import readiness
from cluster.operate import compose
from cluster.runtimes import containers, docker_engine, image, volumes
from tasks.support.here import guarded


@deploy("Check this machine's readiness")
def check_readiness() -> None:
    """Compose file, names, ports, subnet, memory, disk, data files, memlock: before any change."""
    with guarded():
        readiness.check_all(config.load())


@deploy("Format the data files of a new cluster")
def format_once() -> None:
    """Format every replica's file, only if none exists; finish what was interrupted."""
    with guarded():
        cluster = config.load()
        # Without an image nothing can look into volumes that are there: then it is decided later.
        can_look = image.id_of(image.name(cluster)) is not None
        if can_look and volumes.plan(cluster) == "keep":
            host.noop("data files: all there, and of this cluster")
            return
    python.call(name="Format the data files", function=_format, cluster=cluster)


@deploy("Start the replicas")
def start() -> None:
    """Start what does not run. A changed setting restarts one replica at a time, each awaited."""
    with guarded():
        cluster = config.load()
        if image.is_current(cluster) and not compose.stale_replicas(cluster):
            host.noop("replicas: all run, as configured")
            return
    python.call(name="Start the replicas", function=_start, cluster=cluster)


@deploy("Wait until the cluster commits")
def wait_until_committing() -> None:
    """Health level 3: all replicas normal, one transfer committed and read back."""
    with guarded():
        cluster = config.load()
    python.call(name="Wait until the cluster commits", function=_await_commit, cluster=cluster)


@deploy("Restart the replicas in turn")
def restart() -> None:
    """Restart one replica at a time, the primary last, the next only when the cluster commits."""
    with guarded():
        cluster = config.load()
        compose.refuse_incomplete(cluster)
    python.call(name="Restart each replica", function=_restart, cluster=cluster)


@deploy("Stop the replicas")
def stop() -> None:
    """Stop and remove the containers; the volumes stay. Nothing to do when there are none."""
    with guarded():
        docker_engine.info()
        cluster = config.load()
        if not containers.of_replicas(cluster):
            host.noop("no replica has a container")
            return
    python.call(name="Stop the replicas", function=_stop, cluster=cluster)


def _format(cluster: config.Cluster) -> None:
    with guarded():
        readiness.check_memlock(cluster)  # again: on a new machine, only now there is an image
        if volumes.plan(cluster) == "keep":
            return  # a new release: only its image was missing
        compose.format_files(cluster)


def _start(cluster: config.Cluster) -> None:
    with guarded():
        compose.start(cluster)


def _restart(cluster: config.Cluster) -> None:
    with guarded():
        compose.restart(cluster)


def _await_commit(cluster: config.Cluster) -> None:
    with guarded():
        compose.await_commit(cluster, on_progress=lambda seen: logger.info(f"    {seen}"))


def _stop(cluster: config.Cluster) -> None:
    with guarded():
        compose.stop(cluster)
