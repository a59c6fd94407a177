"""``make doctor``: what is wrong with the cluster, why, and what to do about it.

Looks only, changes nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

import click

from cluster.checks import facts, rules
from cluster.checks.observe import observe
from cluster.checks.rules import Finding
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.refusal import Refusal
from cluster.runtimes import of, tunnel
from cluster.runtimes.ssh import SshError
from cluster.tigerbeetle import log_lines
from cluster.tigerbeetle.canary import Canary

#: Of the cluster in Docker on this machine, where no inventory is named.
DEFAULT = "inventories/local.py"
_LOG_LINES = 200
#: A commit takes milliseconds: whoever asks a doctor does not want to wait for a dead cluster.
_CANARY_TIMEOUT_S = 5


def examine(deployment: Deployment) -> Iterator[Finding]:
    """All that can be seen to be wrong, the machines first, then each replica."""
    runtime = of(deployment)
    try:
        seen = observe(deployment)
    except SshError as error:
        yield Finding("ssh", "servers", str(error))
        return
    except Refusal as error:
        yield Finding("engine", "this machine", str(error))
        return
    yield from rules.examine(deployment, seen)
    try:
        plan = facts.plan(deployment, seen)
        if plan is None:
            text = "no image. Fix: make compose-tb-build"
            yield Finding("no-image", "this machine", text)
            return
        if plan == "format":
            text = f"there are no data files. Fix: {runtime.new}, for a new cluster"
            yield Finding("unformatted", "data files", text)
    except Refusal as error:
        yield Finding("data-files", "data files", str(error))
    marks = {i: f.settings for i, f in seen.items() if f.running.get(deployment.runtime)}
    yield from _replicas(facts.limited(deployment, seen), marks)


def _replicas(deployment: Deployment, marks: dict[int, str]) -> Iterator[Finding]:
    runtime, replicas = of(deployment), deployment.cluster.replicas
    states = runtime.states() or {}
    for replica in replicas:
        lines: Sequence[str] = ()
        with contextlib.suppress(SshError):  # its process has told of it already
            lines = runtime.log_tail(replica.index, _LOG_LINES)
        process = states.get(replica.index)
        if process and process.is_running:  # what an earlier run has died of is over
            lines = log_lines.of_last_run(lines)
        said = "\n".join(lines)
        told = runtime.diagnose(replica.index, process, said)
        for diagnosis in told:
            yield Finding(diagnosis.key, replica.name, str(diagnosis))
        if not told:
            yield from _in_log(replica.name, said)
    try:
        todo = runtime.todo(marks)
    except Refusal as error:
        yield Finding("program", "this machine", str(error))
        todo = None
    running = {index for index, process in states.items() if process.is_running}
    for index in sorted(running & {*(todo.stale if todo else ())}):
        text = f"it does not run as configured now. Fix: {runtime.up}"
        yield Finding("stale", replicas[index].name, text)
    for one in health.of_replicas(deployment):
        if one.wedged_because:
            text = (
                "its port is open, and it does not answer or is in an old view: a port check calls "
                "it healthy. Fix: stop this replica alone and start it again, then look at its log"
            )
            yield Finding("wedged", one.replica.name, text)
    quorum = len(replicas) // 2 + 1
    if 0 < len(running) < quorum:
        text = (
            f"{len(running)} of {len(replicas)} replicas run, and {quorum} are needed to commit: "
            f"clients wait without an error. Fix: {runtime.up}"
        )
        yield Finding("no-quorum", "cluster", text)


def _in_log(name: str, said: str) -> Iterator[Finding]:
    """What somebody must act upon by the catalogue of log lines, each meaning once."""
    by_meaning = {r.meaning or r.text: r for r in log_lines.to_act_upon(said.splitlines())}
    for reading in by_meaning.values():
        meaning = reading.meaning or "an error that nobody has described yet"
        yield Finding("log", name, f"{meaning} (seen: {reading.text})")


def commits(deployment: Deployment) -> Canary:
    """Whether it serves anybody, whatever was found."""
    deployment = tunnel.reached(deployment)
    if not any(health.port_answers(replica) for replica in deployment.clients):
        return Canary(False, "no port answers")
    return health.probe(deployment, _CANARY_TIMEOUT_S)


@click.command()
@click.option("--inventory", "file", default=DEFAULT, show_default=True, help="Whose cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(file: str, *, as_json: bool) -> int:
    """Say what is wrong with the cluster, why, and what to do about it.

    Exit codes: 0 nothing found and it commits, 1 something was found, 2 bad configuration.
    """
    deployment = inventory.read(file)
    findings = list(examine(deployment))
    canary = commits(deployment) if not any(f.key in ("engine", "ssh") for f in findings) else None
    healthy = canary is not None and canary.commits
    if as_json:
        print(json.dumps({"findings": [vars(f) for f in findings], "commits": healthy}, indent=2))
    else:
        for finding in findings:
            print(f"✗ {finding.where}: {finding.text} [{finding.key}]")
        print(f"{len(findings) or 'nothing'} found; canary: {canary.detail if canary else '-'}")
    return 1 if findings or not healthy else 0
