"""What is done to the replicas in Docker: build, format, start, restart, stop, remove.

The verbs behind ``make compose-tb-*`` and behind ``pyinfra inventories/local.py deploy.py``. Each
does nothing where its work is done, and shows what Docker says while it works.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import IO

from cluster import REPOSITORY
from cluster.config import Cluster, inventory
from cluster.config.inventory import Deployment
from cluster.health import health, planned_stop
from cluster.operate import rollout
from cluster.refusal import Refusal
from cluster.runtimes import containers, diagnoses, docker_engine, image, volumes
from cluster.runtimes.containers import Container
from cluster.runtimes.volumes import Volume

NAME = "local"

#: A build pulls its base over the slowest line; everything else takes seconds.
_SHOWN_TIMEOUT_S = 3600.0
#: Between a command's end and the last line of it.
_LAST_WORDS_S = 5.0


def deployment(cluster: Cluster) -> Deployment:
    """What inventories/local.py describes."""
    return inventory.of_hosts(
        [{"deployment": NAME, "engine": image.engine_of(cluster), "runtime": "compose"}]
    )


def build(cluster: Cluster) -> None:
    """Build our image, bringing its base when that is absent. Raises Refusal."""
    image.pull_base(cluster)
    _show(docker_engine.compose("build"), **image.build_variables(cluster))


def format_files(cluster: Cluster) -> None:
    """Format a new cluster's files, or finish an interrupted format; never over a file.

    Raises Refusal for volumes that must not be formatted, and while a
    container uses them.
    """
    refuse_while_in_use(cluster)
    found = volumes.read(cluster)
    if volumes.decide(found, cluster) == "format":
        format_volumes(cluster, found)


def format_volumes(cluster: Cluster, found: Mapping[int, Volume | None]) -> None:
    """Format what ``decide`` has called ``format``, or finish it. Raises Refusal."""
    for command in volumes.format_commands(cluster, found):
        _show(command)


def start(cluster: Cluster) -> None:
    """Start what does not run; restart what has new settings, one replica at a time.

    Raises Refusal when Docker refuses, Unhealthy when the cluster does not commit in between.
    """
    stale = stale_replicas(cluster)
    running = {i for i, c in containers.of_replicas(cluster).items() if c.pid}
    act = _actions(cluster, _up)
    rollout.renew("new settings", stale - running, stale & running, act)


def stale_replicas(cluster: Cluster) -> set[int]:
    """Replicas that do not run, or not as configured now. Raises Refusal."""
    configured = dict(
        line.split()
        for line in docker_engine.stdout(docker_engine.compose("config", "--hash=*")).splitlines()
    )
    image_id = image.id_of(image.name(cluster))
    found = containers.of_replicas(cluster)
    return {
        replica.index
        for replica in cluster.replicas
        if not _is_as_configured(found.get(replica.index), configured, image_id)
    }


def restart(cluster: Cluster) -> None:
    """Restart one replica at a time, the next only when the cluster commits again.

    Raises Refusal when Docker refuses, Unhealthy when the cluster cannot spare a replica.
    """
    act = _actions(
        cluster, lambda index: _show(docker_engine.compose("restart", f"tigerbeetle-{index}"))
    )
    rollout.roll("restart", {replica.index for replica in cluster.replicas}, act)


def stop(cluster: Cluster, *, with_volumes: bool = False) -> None:
    """Stop and remove the containers and their network; the volumes only when asked to.

    The alerts are told first: whoever stops all of them means it.
    """
    if containers.of_replicas(cluster):  # else there is no network either to tell them through
        planned_stop.announce_all(cluster, is_planned=True)
    options = ["--volumes"] if with_volumes else []
    _show(docker_engine.compose("down", "--remove-orphans", *options))


def await_commit(
    cluster: Cluster, on_progress: Callable[[str], None] = lambda seen: print(f"  {seen}")
) -> None:
    """Return when all replicas are normal and a transfer was committed. Raises Unhealthy.

    A known cause is named first, before what was last seen. A planned stop ends here.
    """
    try:
        health.wait(deployment(cluster), on_progress=on_progress)
    except health.Unhealthy as unhealthy:
        known = diagnoses.of_text(str(unhealthy))
        raise health.Unhealthy(f"{known}\n{unhealthy}") if known else unhealthy from None
    planned_stop.announce_all(cluster, is_planned=False)


def refuse_incomplete(cluster: Cluster) -> None:
    """Raises Refusal when a replica has no container: there is nothing to restart."""
    docker_engine.info()
    found = len(containers.of_replicas(cluster))
    if found < len(cluster.replicas):
        raise Refusal(
            f"restart: expected every replica to have a container, found {found} of "
            f"{len(cluster.replicas)}. Fix: make compose-tb-up"
        )


def refuse_while_in_use(cluster: Cluster) -> None:
    """Raises Refusal when a replica runs, or a one-off container, such as another format."""
    running = [c.name for c in containers.of_replicas(cluster).values() if c.state != "exited"]
    using = [*running, *containers.one_off()]
    if using:
        raise Refusal(
            f"format: expected no container to use the volumes, found {', '.join(using)}. "
            "Fix: make compose-tb-down"
        )


def _actions(cluster: Cluster, step: Callable[[int], None]) -> rollout.Actions:
    return rollout.of_deployment(
        deployment(cluster), step, settle=lambda index: await_commit(cluster)
    )


def _up(index: int) -> None:
    service = f"tigerbeetle-{index}"
    _show(docker_engine.compose("up", "--detach", "--no-deps", "--no-build", service))


def _is_as_configured(
    found: Container | None, configured: Mapping[str, str], image_id: str | None
) -> bool:
    return (
        found is not None
        and found.pid > 0
        and found.image_id == image_id
        and found.config_hash == configured.get(found.service)
    )


def _show(command: list[str], **variables: str) -> None:
    """Run with the output on the terminal as it comes. Raises Refusal with a known cause."""
    process: subprocess.Popen[str] = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=docker_engine.environ(**variables),
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    said: list[str] = []
    reader = threading.Thread(target=_tell, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        process.wait(_SHOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise Refusal(
            f"`{shlex.join(command)}`: expected its end within {_SHOWN_TIMEOUT_S:g} s, found: "
            f"{(said or ['no output'])[-1].strip()}. Fix: look at the engine's own log"
        ) from None
    reader.join(_LAST_WORDS_S)
    if process.returncode != 0:
        known = diagnoses.of_text("".join(said))
        raise Refusal(str(known) if known else docker_engine.refusal(command, "".join(said)))


def _tell(output: IO[str], said: list[str]) -> None:
    with output:
        for line in output:
            print(line, end="", flush=True)
            said.append(line)
