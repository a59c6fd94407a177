"""``make doctor``: what is wrong with the cluster in Docker, why, and what to do about it.

Looks only, changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from cluster import config
from cluster.checks import readiness
from cluster.config import Cluster
from cluster.health import health
from cluster.operate import compose
from cluster.refusal import Refusal
from cluster.runtimes import containers, diagnoses, docker_engine, image, volumes
from cluster.tigerbeetle import log_lines
from cluster.tigerbeetle.canary import Canary

_LOG_LINES = 200
#: A commit takes milliseconds: whoever asks a doctor does not want to wait for a dead cluster.
_CANARY_TIMEOUT_S = 5


@dataclass(frozen=True)
class Finding:
    """Something wrong: its stable key, where, and cause, fix and evidence in a line."""

    key: str
    where: str
    text: str


def examine(cluster: Cluster) -> Iterator[Finding]:
    """All that can be seen to be wrong, the machine first, then each replica."""
    try:
        info = docker_engine.check_versions()
    except Refusal as error:
        yield Finding("engine", "this machine", str(error))
        return
    checks: dict[str, Callable[[], None]] = {
        "kernel": lambda: readiness.check_kernel(info),
        "model": lambda: readiness.check_model(cluster, docker_engine.model()),
        "names": lambda: readiness.check_names(cluster),
        "ports": lambda: readiness.check_ports(cluster),
        "subnet": lambda: readiness.check_subnet(cluster),
        "memory": lambda: readiness.check_memory(cluster, info),
        "disk": lambda: readiness.check_disk(cluster, info),
        "memlock": lambda: readiness.check_memlock(cluster),
    }
    for key, check in checks.items():
        try:
            check()
        except Refusal as error:
            yield Finding(key, "this machine", str(error))
    if image.id_of(image.name(cluster)) is None:
        yield Finding("no-image", "this machine", "no image. Fix: make compose-tb-build")
        return
    yield from _data_files(cluster)
    yield from _replicas(cluster)


def _data_files(cluster: Cluster) -> Iterator[Finding]:
    try:
        if volumes.plan(cluster) == "format":
            text = "the volumes are not formatted. Fix: make compose-tb-format, for a new cluster"
            yield Finding("unformatted", "volumes", text)
    except Refusal as error:
        yield Finding("data-files", "volumes", str(error))


def _replicas(cluster: Cluster) -> Iterator[Finding]:
    found = containers.of_replicas(cluster)
    deployment = compose.deployment(cluster)
    for replica in cluster.replicas:
        said = "\n".join(containers.log_tail(deployment, replica.index, _LOG_LINES))
        told = diagnoses.of_container(found.get(replica.index), replica, said)
        for diagnosis in told:
            yield Finding(diagnosis.key, replica.name, str(diagnosis))
        if not told:
            yield from _in_log(replica.name, said)
    running = {index for index, container in found.items() if container.state == "running"}
    for index in sorted(compose.stale_replicas(cluster) & running):
        text = "it does not run as configured now. Fix: make compose-tb-up"
        yield Finding("stale", cluster.replicas[index].name, text)
    for one in health.of_replicas(deployment):
        if one.is_wedged:
            text = (
                "its port is open, and it does not answer or is in an old view: a port check calls "
                f"it healthy. Fix: docker restart {one.replica.name}, then look at its log"
            )
            yield Finding("wedged", one.replica.name, text)
    quorum = len(cluster.replicas) // 2 + 1
    if 0 < len(running) < quorum:
        text = (
            f"{len(running)} of {len(cluster.replicas)} replicas run, and {quorum} are needed to "
            "commit: clients wait without an error. Fix: make compose-tb-up"
        )
        yield Finding("no-quorum", "cluster", text)


def _in_log(name: str, said: str) -> Iterator[Finding]:
    """What somebody must act upon by the catalogue of log lines, each meaning once."""
    by_meaning = {r.meaning or r.text: r for r in log_lines.to_act_upon(said.splitlines())}
    for reading in by_meaning.values():
        meaning = reading.meaning or "an error that nobody has described yet"
        yield Finding("log", name, f"{meaning} (seen: {reading.text})")


def commits(cluster: Cluster) -> Canary:
    """Whether it serves anybody, whatever was found."""
    deployment = compose.deployment(cluster)
    if not any(health.port_answers(replica) for replica in deployment.clients):
        return Canary(False, "no port answers")
    return health.probe(deployment, _CANARY_TIMEOUT_S)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(*, as_json: bool) -> int:
    """Say what is wrong with the cluster in Docker, why, and what to do about it.

    Exit codes: 0 nothing found and it commits, 1 something was found, 2 bad configuration.
    """
    cluster = config.load()
    findings = list(examine(cluster))
    canary = commits(cluster) if not any(f.key == "engine" for f in findings) else None
    healthy = canary is not None and canary.commits
    if as_json:
        print(json.dumps({"findings": [vars(f) for f in findings], "commits": healthy}, indent=2))
    else:
        for finding in findings:
            print(f"✗ {finding.where}: {finding.text} [{finding.key}]")
        print(f"{len(findings) or 'nothing'} found; canary: {canary.detail if canary else '-'}")
    return 1 if findings or not healthy else 0
