"""``make upgrade TO=``: the new server to every replica in turn, then the switch, then the record.

With the new program a replica goes on as the old release. Once all have it, the cluster moves to
the new one by itself, all replicas at the same operation: they start again within seconds of one
another, and the clients wait. So it is every replica's own word that ends this command, not what
was installed. There is no way back but a backup.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import metadata

import click

from cluster import config
from cluster.command import by_inventory, confirm, say
from cluster.config import PREFIX, env_file, inventory
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import ReplicaHealth, Unhealthy
from cluster.operate import last_word, phase
from cluster.operate.backup import sets
from cluster.refusal import Failed, Refusal, begun
from cluster.runtimes import of
from cluster.tigerbeetle import upgrade_path, waiting
from cluster.tigerbeetle.upgrade_path import Offer

#: All replicas start again at once, and take all their memory: 12 s on two busy cores.
SWITCH_TIMEOUT_S = 180.0
BACKUP_AGE_MAX = timedelta(hours=24)
#: What was recorded for one release holds for no other.
_OF_RELEASE = ("IMAGE_DIGEST", "SHA256_X86_64", "SHA256_AARCH64")


def check(deployment: Deployment, target: str) -> Offer:
    """All that can be known before: path, programs, replicas. Touches nothing. Raises Refusal."""
    current = deployment.cluster.release
    deployment.require_replication("upgrade", "INVENTORY=inventories/process.py or another")
    upgrade_path.check_step(current, target, deployment.named)
    replicas = _normal(deployment)
    running = {r.replica.index: _runs(r) for r in replicas}
    upgrade_path.check_running(running, current, target, deployment.named)
    offer = upgrade_path.parse_offer(of(at(deployment, target)).offer())
    upgrade_path.check_offer(offer, current, target)
    upgrade_path.check_client(metadata.version("tigerbeetle"), offer)
    return offer


def _normal(deployment: Deployment) -> list[ReplicaHealth]:
    """All replicas, once all are normal; a passing state is waited out. Raises Refusal."""
    seen = health.settled(lambda: health.of_replicas(deployment))
    if out := ", ".join(str(r) for r in seen if not r.is_normal):
        named = deployment.named
        back = f"bring them back first (make status {named}, make up {named})"
        raise Refusal(
            f"upgrade: expected every replica normal, since a cluster switches only with all of "
            f"them, found {out}. Fix: {health.remedy(out, back)}"
        )
    return seen


def at(deployment: Deployment, target: str) -> Deployment:
    """The same deployment with the target as its release, and nothing recorded for it yet."""
    forgotten = {name.lower(): "" for name in _OF_RELEASE}
    cluster = deployment.cluster.model_copy(update={"release": target, **forgotten})
    return deployment.model_copy(update={"cluster": cluster})


def environ_at(target: str) -> dict[str, str]:
    """This process's environment, with the target over what the env file says."""
    forgotten = {f"{PREFIX}{name}": "" for name in _OF_RELEASE}
    return os.environ | {f"{PREFIX}RELEASE": target} | forgotten


def backup_age(deployment: Deployment, now: datetime) -> timedelta | None:
    """The age of the newest whole backup of this very cluster; None when there is none."""
    found = sets.directory(deployment.name).glob(f"*/{sets.MANIFEST}")
    whole = sets.of_cluster((path.parent for path in found), deployment)
    return min((now - manifest.taken_at for manifest in whole.values()), default=None)


def upgrade(inventory_file: str, deployment: Deployment, target: str) -> None:
    """Roll the new server out and wait for the switch. Raises Refusal."""
    _deploy(inventory_file, "deploy.py", target)
    deaf = [r for r in health.of_replicas(deployment) if target not in (*r.log.bundled, _runs(r))]
    if deaf:  # a program replaced in its place changes no setting, so the deploy restarts nothing
        _deploy(inventory_file, "tasks.replica.restart", target)
    await_switch(deployment, target)
    health.wait(deployment, on_progress=say)


def await_switch(deployment: Deployment, target: str) -> None:
    """Return once every replica says that it runs the target. Raises Unhealthy."""

    def observe() -> tuple[bool, str]:
        replicas = health.of_replicas(deployment)
        seen = ", ".join(f"{r} on {_runs(r) or 'no release'}" for r in replicas)
        switched = upgrade_path.remaining(map(_runs, replicas), target) == 0
        return switched and all(r.is_normal for r in replicas), seen

    what = f"every replica to run {target}"
    try:
        waiting.wait_until(observe, what=what, timeout_s=SWITCH_TIMEOUT_S, on_progress=say)
    except waiting.Expired as expired:
        raise Unhealthy(
            f"{expired}. Fix: bring every replica back; the cluster switches once all offer "
            f"{target}. Then repeat"
        ) from None


def record(deployment: Deployment, target: str) -> str:
    """Write the release into the env file and empty the old one's records; what to tell."""
    if f"{PREFIX}RELEASE" in os.environ:
        return f"{PREFIX}RELEASE comes from your environment: set it to {target} there"
    path = deployment.env_file
    recorded = config.read(path, {})
    env_file.record(path, f"{PREFIX}RELEASE", target)
    emptied = [f"{PREFIX}{name}" for name in _OF_RELEASE if recorded.get(f"{PREFIX}{name}")]
    for variable in emptied:
        env_file.record(path, variable, "")
    said = f"{config.shown(path)}: {PREFIX}RELEASE={target}"
    if emptied:
        said += (
            f"; emptied, since they were {deployment.cluster.release}'s: {', '.join(emptied)}. "
            "Record the new ones with `make pin` or `make compose-tb-pin`"
        )
    return said


def _deploy(inventory_file: str, what: str, target: str) -> None:
    try:
        phase.run(inventory_file, what, environ=environ_at(target))
    except Failed as failed:
        raise Failed(
            f"upgrade: expected `{what}` to succeed with {target}, found {failed}. "
            "The replicas go on as the old release until all have the new server. Fix: repeat "
            "when the cause is gone"
        ) from None


def _runs(replica: ReplicaHealth) -> str:
    """The release that it runs, by its own word: to a ping, else in its log."""
    return replica.pong.release if replica.pong else replica.log.release


def _confirm(deployment: Deployment, target: str) -> None:
    """The word at a terminal, or CONFIRM=yes: there is no way back. Raises Refusal."""
    age = backup_age(deployment, datetime.now(UTC))
    known = f"the newest is {age.total_seconds() / 3600:.1f} h old" if age else "none is known"
    print(
        f"{deployment.label}: {deployment.cluster.release} -> {target}. There is no way back "
        f"but a backup taken before; {known}."
    )
    fresh = age is not None and age < BACKUP_AGE_MAX
    advice = "" if fresh else f"make backup {deployment.named} first; then "
    if advice and sys.stdin.isatty() and os.environ.get("CONFIRM") != "yes":
        print(f"Better: {advice}again.")
    fix = f"{advice}CONFIRM=yes; nothing was touched"
    confirm("upgrade", since="an upgrade cannot be taken back", fix=fix)


@click.command()
@by_inventory
@click.argument("to")
def main(file: str, to: str) -> None:
    """Upgrade every replica to the release TO, such as 0.17.9.

    Exit codes: 0 done, 1 not (the cluster's state is told), 2 refused (nothing was touched).
    """
    deployment = inventory.read(file)
    started = time.monotonic()
    offer = check(deployment, to)
    _confirm(deployment, to)
    with last_word.said(deployment), begun():
        upgrade(file, deployment, to)
    print(f"every replica runs {to}, after {time.monotonic() - started:.0f} s")
    print(record(deployment, to))
    print(f"Clients next, from {offer.client_min} to {to}: here, tigerbeetle in pyproject.toml.")
