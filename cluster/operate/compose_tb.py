"""``make compose-tb-*``: one replica set in Docker on this machine, step by step or all at once."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable

import click

from cluster import REPOSITORY, config
from cluster.checks import existence, facts, rules
from cluster.checks.observe import observe
from cluster.command import confirm, say
from cluster.config import Cluster, inventory
from cluster.config.deployment import Deployment
from cluster.health import health, planned_stop, status
from cluster.operate import last_word, rollout
from cluster.refusal import Failed, Refusal, begun
from cluster.runtimes import compose, container, docker_engine, image, volumes
from cluster.runtimes.compose import Compose
from cluster.tigerbeetle import data_file
from cluster.tigerbeetle.canary import Probe

_INVENTORY = "inventories/local.py"


@click.group()
@click.pass_context
def main(context: click.Context) -> None:
    """Three replicas in Docker on this machine, step by step or all at once.

    Exit codes: 0 done, 1 failed: Docker's commands, or the cluster does not commit; 2 refused, and
    nothing was touched; of `status`: 0 healthy, 1 degraded, 3 down, 4 unknown.
    """
    context.obj = config.load()


def init(cluster: Cluster) -> None:
    """Build, stop, remove the old volumes, format, start, and wait for the first commit."""
    begun = time.monotonic()
    docker_engine.check_versions()
    is_reset, deployment = _confirm_loss(cluster), _deployment(cluster)
    past = existence.past(deployment)
    if past.traces and not (is_reset or existence.is_new_meant()):
        data_file.refuse_new(cluster, past)
    build(cluster)
    rules.check(deployment, observe(deployment))
    if is_reset:
        existence.end(deployment)
    _stop(cluster, "--volumes")
    format_files(cluster)
    up(cluster)
    print(f"init to first commit: {time.monotonic() - begun:.1f} s")


def build(cluster: Cluster) -> None:
    """Build our image, unless the one here was built from the same inputs."""
    docker_engine.check_versions()
    if image.is_current(cluster):
        print(f"{image.name(cluster)} is up to date.")
        return
    print("Building custom TigerBeetle image...", flush=True)
    compose.build(cluster)
    print("Custom TigerBeetle image built successfully.")


def pin(cluster: Cluster) -> None:
    """Record the digest of the pulled base image, once; every later build must match it."""
    docker_engine.check_versions()
    digest = image.pin(cluster, config.ENV_FILE)
    print(f"{config.PREFIX}IMAGE_DIGEST={digest}")


def format_files(cluster: Cluster) -> None:
    """Format the data files of a new cluster; never over an existing one."""
    _require_image(cluster)
    compose.refuse_while_in_use(cluster)
    deployment = _deployment(cluster)
    seen, is_new_meant = observe(deployment), existence.is_new_meant()
    rules.check(deployment, seen, only=("disk",))
    if facts.plan(deployment, seen, is_asked_for=is_new_meant) == "keep":
        raise Refusal(
            "format: expected volumes without data files, found those of "
            f"cluster {cluster.id}: they are kept. Fix: make compose-tb-up to start them; "
            "make compose-tb-down-volumes first, to lose them"
        )
    print("Formatting TigerBeetle data files...", flush=True)
    with begun():
        Compose(deployment).format_all()
    existence.note(deployment)
    print("TigerBeetle data files formatted successfully.")


def up(cluster: Cluster) -> None:
    """Start the cluster; return when it commits."""
    _require_image(cluster)
    deployment = _deployment(cluster)
    runtime = Compose(deployment)
    if rules.check_all(deployment, observe(deployment)) == "format":
        raise Refusal("up: expected formatted data files, found none. Fix: make compose-tb-format")
    existence.note(deployment)
    todo = runtime.stale()
    act = rollout.of_deployment(deployment, lambda i: compose.show_line(runtime.renew(i)))
    rollout.renew("new settings", todo.stopped, todo.stale, act)
    health.wait(deployment, on_progress=say)
    planned_stop.announce_of(deployment, is_planned=False)


def down(cluster: Cluster) -> None:
    """Stop and remove the containers; the data stays."""
    docker_engine.info()
    _stop(cluster)


def down_volumes(cluster: Cluster) -> None:
    """Stop the cluster and remove its data."""
    docker_engine.info()
    if _confirm_loss(cluster):
        existence.end(_deployment(cluster))
    _stop(cluster, "--volumes")


def restart(cluster: Cluster) -> None:
    """Restart one replica at a time; the cluster goes on committing."""
    runtime = Compose(_deployment(cluster))
    runtime.check_whole()
    rules.check(runtime.deployment, observe(runtime.deployment), only=("memory", "ports"))
    act = rollout.of_deployment(runtime.deployment, lambda i: compose.show_line(runtime.restart(i)))
    rollout.roll("restart", {replica.index for replica in cluster.replicas}, act)


def show_status(cluster: Cluster) -> int:
    """Containers and their health checks, then each replica's role and the commit canary."""
    docker_engine.info()
    names = [f"--filter=name=^/{replica.name}$" for replica in cluster.replicas]
    columns = "table {{.Names}}\t{{.Status}}\t{{.Ports}}"
    print("=== TigerBeetle Cluster Status ===")
    print(docker_engine.stdout(["docker", "ps", "--all", "--format", columns, *names]))
    print("=== Detailed Health Information ===")
    found = container.of_replicas(cluster)
    for replica in cluster.replicas:
        print(f"--- {replica.name} ---")
        each = found.get(replica.index)
        if each is None:
            print("Status: no container\n")
            continue
        print(f"Status: {each.health if each.pid else each.state}")
        print(f"Last Check: {each.last_check or '-'}")
        kib = container.locked_kib(each.name)
        print(f"Locked Memory: {'-' if kib is None else f'{kib / 1024:,.0f} MiB'}\n")
    deployment = _deployment(cluster)
    with Probe() as client:
        client.connect(deployment.client_addresses, cluster.id)
        return status.show(deployment, client, as_json=False)


@main.command()
@click.option("--container", help="Only this one.")
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.pass_obj
def logs(cluster: Cluster, container: str | None, *, follow: bool) -> int:
    """The logs of all replicas, or of one container."""
    services = [f"tigerbeetle-{_index_of(cluster, container)}"] if container else []
    docker_engine.info()
    options = ["--follow"] if follow else []
    return _become(docker_engine.compose("logs", *options, *services))


def repl(cluster: Cluster) -> int:
    """TigerBeetle's prompt, in a replica's container: it takes one of the 64 client sessions."""
    docker_engine.info()
    running = [c for c in container.of_replicas(cluster).values() if c.state == "running"]
    if not running:
        raise Refusal("repl: expected a running replica, found none. Fix: make compose-tb-up")
    terminal = ["--tty"] if sys.stdin.isatty() else []
    prompt = ["/tigerbeetle", "repl", f"--cluster={cluster.id}", f"--addresses={cluster.addresses}"]
    return _become(["docker", "exec", "--interactive", *terminal, running[0].name, *prompt])


def _deployment(cluster: Cluster) -> Deployment:
    """What inventories/local.py describes."""
    described = {"deployment": "local", "engine": image.engine_of(cluster), "runtime": "compose"}
    return inventory.of_hosts([described | {"inventory_file": inventory.locate(_INVENTORY)}])


def _stop(cluster: Cluster, *options: str) -> None:
    """Stop and remove the containers and their network; the alerts are told first."""
    if container.of_replicas(cluster):  # else there is no network either to tell them through
        planned_stop.announce_of(_deployment(cluster), is_planned=True)
    compose.show(docker_engine.compose("down", "--remove-orphans", *options))


def _require_image(cluster: Cluster) -> None:
    docker_engine.check_versions()
    image.require(cluster)


def _confirm_loss(cluster: Cluster) -> bool:
    """Before data is removed: CONFIRM=yes, or the word at a terminal. Raises Refusal.

    False where nobody was asked, since nothing is here that could be lost.
    """
    present = [volumes.name(index) for index in volumes.existing(cluster)]
    with contextlib.suppress(Refusal):  # nothing here can look inside: it may hold data
        if not present or not volumes.holds_data(volumes.read(cluster)):
            return os.environ.get("CONFIRM") == "yes"
    if os.environ.get("CONFIRM") != "yes":
        print(f"This removes the data of cluster {cluster.id}: {', '.join(present)}")
    confirm(
        "remove it",
        since="data would be lost",
        fix="make compose-tb-up to start what is there; CONFIRM=yes to remove it",
        nothing="nothing was removed",
    )
    return True


def _index_of(cluster: Cluster, name: str) -> int:
    names = [replica.name for replica in cluster.replicas]
    if name not in names:
        wanted = f"one of {', '.join(names)}"
        raise Refusal("CONTAINER", expected=wanted, found=name, fix="name one of them")
    return names.index(name)


def _become(command: list[str]) -> int:
    """Hand the terminal over: the command is the rest of this program."""
    os.chdir(REPOSITORY)
    os.execvpe(command[0], command, docker_engine.environ())  # noqa: S606 - no shell is wanted


def _telling(action: Callable[[Cluster], None]) -> Callable[[Cluster], None]:
    """The action, and what runs if it is interrupted, or fails."""

    @functools.wraps(action)
    def acting(cluster: Cluster) -> None:
        try:
            action(cluster)
        except (KeyboardInterrupt, Failed):
            with last_word.said(_deployment(cluster)):
                raise

    return acting


for _action in (init, up, down, down_volumes, restart):
    main.command()(click.pass_obj(_telling(_action)))
for _other in (build, pin, repl):
    main.command()(click.pass_obj(_other))
main.command("format")(click.pass_obj(format_files))
main.command("status")(click.pass_obj(show_status))
