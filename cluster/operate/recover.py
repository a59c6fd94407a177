"""``make recover REPLICA=N``: a lost data file made again from the others, in a living cluster.

A replica without its file has forgotten what it has acknowledged; formatting it anew would let the
cluster lose it. ``tigerbeetle recover`` makes a file that takes part only once it has learned from
the others. Until then the cluster has one replica less: it is done only when it commits, and all
others are well, but for those that it can spare.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from cluster.checks import existence, facts
from cluster.checks.observe import observe
from cluster.command import by_inventory, chosen
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import ReplicaHealth
from cluster.operate import last_word, phase
from cluster.refusal import Failed, Refusal, begun
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.data_file import spared


def recover(inventory_file: str, deployment: Deployment, index: int) -> None:
    """Recover replica ``index``; return when it has caught up. Raises Refusal, or Failed."""
    refuse_engine(deployment)
    replicas = health.of_replicas(deployment)
    data = {"recover_replica": str(index)}
    if not any(r.pid or r.port_open for r in replicas):
        lost = {*facts.missing(deployment, observe(deployment)), index}
        existence.require_files("recover", deployment, sorted(lost), spared(len(replicas)))
        who = ", ".join(map(str, sorted(lost)))
        print(f"the cluster is down: starting the replicas other than {who}", flush=True)
        try:
            start = data | {"lost_replicas": who}
            phase.run(inventory_file, "tasks.recover.start_others", data=start)
        except Failed as failed:
            raise Refusal(
                f"recover: expected the replicas other than {index} to serve once started, found "
                f"that they do not: {failed}; no data file was touched. Fix: "
                f"make status {deployment.named}; if a majority of the files is lost, go back to a "
                f"backup: make restore {deployment.named} FROM="
            ) from None
    replicas = health.settled(lambda: health.of_replicas(deployment), beside=index)
    canary = health.probe(deployment) if any(r.port_open for r in replicas) else None
    refuse_unsafe(replicas, index, canary, deployment.named)
    try:
        phase.run(inventory_file, "tasks.recover.check", data=data)
    except Failed as failed:
        raise Refusal(f"recover: {failed}; nothing was touched") from None
    with begun("; the other replicas were not touched"):
        phase.run(inventory_file, "tasks.recover.recover", data=data)


def refuse_engine(deployment: Deployment) -> None:
    """Only replicas can recover from one another. Pure. Raises Refusal."""
    restore = f"go back to a backup: make restore {deployment.named} FROM="
    deployment.require_replication("recover", restore)
    if len(deployment.cluster.replicas) == 1:
        raise Refusal(
            "recover: expected other replicas to recover from, found a cluster of one. "
            f"Fix: {restore}"
        )


def refuse_unsafe(
    replicas: Sequence[ReplicaHealth], index: int, canary: Canary | None, named: str
) -> None:
    """The one does not run, the cluster commits, and all others are normal: of six replicas one of
    them may be lost too, and is next. ``named`` is the inventory. Pure. Raises Refusal.
    """
    lost = replicas[index]
    unwell = [r for r in replicas if r.replica.index != index and not r.is_normal]
    if not lost.is_known:
        otherwise = "bring its server back, or put another in its place first"
        raise Refusal(
            "recover",
            expected=f"an answer of replica {index}'s server",
            found=lost,
            fix=health.remedy(str(lost), otherwise),
        )
    if lost.process == "RUNNING" and lost.port_open:
        raise Refusal(
            f"recover: expected replica {index} not to run, found it running as pid {lost.pid}. "
            "Fix: nothing, if it is well: it repairs itself from the others; look with "
            f"make status {named}"
        )
    if len(unwell) >= spared(len(replicas)):
        more = " and one more" if len(replicas) > 3 else ""
        seen = ", ".join(map(str, unwell))
        otherwise = (
            "bring them back first, one at a time; if more files are lost than a majority can "
            f"spare, make restore {named} FROM= a backup"
        )
        raise Refusal(
            f"recover: expected all replicas but {index}{more} to be normal, found {seen}. "
            f"Fix: {health.remedy(seen, otherwise)}"
        )
    if canary is None or not canary.commits:
        raise Refusal(
            f"recover: expected the cluster to commit without replica {index}, found: "
            f"{canary.detail if canary else 'no port answers'}. Fix: make status {named}"
        )


@click.command()
@by_inventory
@click.option("--replica", required=True, help="Whose data file is lost.")
def main(file: str, replica: str) -> None:
    """Make a lost data file again from the others, while the cluster goes on.

    Exit codes: 0 caught up, 1 failed (the others were not touched), 2 refused.
    """
    deployment = inventory.read(file)
    indexes = [r.index for r in deployment.cluster.replicas]
    index = chosen(replica, indexes, "name the one whose data file is lost")[0]
    again = f"make recover REPLICA={index} {deployment.named}"
    with last_word.said(deployment, fix=again):
        recover(file, deployment, index)
