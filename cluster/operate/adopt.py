"""``make adopt``: replicas that somebody else has started become ours, one after the other.

Each server says what runs there, and nothing is changed before all of it fits and a person has
agreed. Then each replica in turn, under the rollout's gate: its server is stopped, its data file
renamed into its place, ours started. A file is never copied, and nothing is ever formatted: one
whose replica does not come back is renamed back, and served as it was before.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

import click

from cluster.checks import adoption, firewall, foreign, rules
from cluster.checks.adoption import Standing
from cluster.checks.facts import Facts, identify
from cluster.checks.foreign import Found, Process
from cluster.checks.observe import observe
from cluster.command import by_inventory, confirm
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.config.servers import Server
from cluster.health import health
from cluster.health.health import ReplicaHealth
from cluster.interruption import whole
from cluster.operate import phase
from cluster.refusal import Failed, Interrupted, Refusal, begun, understood
from cluster.runtimes import layout, of, program, ssh, tunnel
from cluster.runtimes.base import start_arguments
from cluster.tigerbeetle import log
from cluster.tigerbeetle.canary import Canary


@dataclass(frozen=True)
class Survey:
    """What the servers say, and how each replica stands."""

    seen: Mapping[int, Facts]
    found: Mapping[int, Found]
    standings: Mapping[int, Standing]

    def of(self, *states: adoption.State) -> list[int]:
        """The replicas that stand so."""
        return [index for index, each in self.standings.items() if each.state in states]


def look(deployment: Deployment) -> Survey:
    """How things are now, whatever that is. Raises Refusal where a server does not say it."""
    seen, found = observe(deployment), _ask(deployment)
    return Survey(seen, found, {i: adoption.stands(deployment, i, seen[i], found[i]) for i in seen})


def survey(deployment: Deployment) -> Survey:
    """The same, where everything can be adopted. Touches nothing. Raises Refusal."""
    deployment.require_replication("adopt", 'engine="tigerbeetle" in the inventory')
    settings, cluster = deployment.of_servers, deployment.cluster
    now = look(deployment)
    if not now.of("foreign", "stopped") and now.of("missing", "moved"):
        raise Refusal(
            "adopt",
            expected="a TigerBeetle server on each server, whoever has started it",
            found="none on any" if now.of("missing") else "only replicas that a deploy has brought",
            fix=f"make up {deployment.named}",
        )
    reader = partial(identify, tuple(program.reader(deployment)), scratch=deployment.state_dir)
    checked = {
        index: adoption.check(deployment, index, facts, now.found[index], reader)
        for index, facts in now.seen.items()
    }
    rules.check(deployment, adoption.as_ours(deployment, now.seen, now.standings))
    for index, facts in now.seen.items():
        of(deployment).check_program(index, facts.machine or "")
    for server in deployment.servers:
        firewall.check(cluster, settings.clients, server.port)
    return replace(now, standings=checked)


def refuse_unwell(now: Survey, replicas: Sequence[ReplicaHealth], canary: Canary | None) -> None:
    """All that run are normal, and the cluster commits, unless one was cut off. Pure.

    Raises Refusal.
    """
    running = now.of("ours", "foreign")
    unwell = [r for r in replicas if r.replica.index in running and not r.is_normal]
    found = ", ".join(map(str, unwell))
    if not found and canary is not None and not canary.commits:
        found = canary.detail
    if found:
        raise Refusal(
            "adopt",
            expected="every replica that runs to be normal, and a cluster that commits",
            found=found,
            fix="bring it back as it was started, then repeat",
        )


def health_of(
    deployment: Deployment, others: Collection[int], logs: health.Logs | None = None
) -> list[ReplicaHealth]:
    """Levels 1 and 2 of each replica; ``others`` are served by somebody else's servers."""
    count = len(deployment.cluster.replicas)
    found = _ask(deployment) if others else {}

    def own(r: ReplicaHealth) -> ReplicaHealth:
        index = r.replica.index
        if index not in others:
            return r
        process = adoption.serving(found[index], layout.data_path(deployment, index))
        return as_running(r, process, count) if process else r

    return list(map(own, health.of_replicas(deployment, logs)))


def as_running(seen: ReplicaHealth, process: Process, count: int) -> ReplicaHealth:
    """A replica as its own server tells of itself: its log, and where none is kept, its pong. Pure.

    What answers in the newest view is taken for normal then.
    """
    said = log.parse(process.log)
    if not said.status and seen.pong:
        is_primary = seen.pong.view % count == seen.replica.index
        said = replace(said, status="normal", view=seen.pong.view, is_primary=is_primary)
    return replace(seen, process="RUNNING", pid=process.pid, log=said)


def describe(deployment: Deployment, now: Survey) -> str:
    """What a person agrees to: what is there, and what will be done. Pure."""
    lines = [f"adopt cluster {deployment.cluster.id}, one replica after the other:"]
    for server in deployment.servers:
        standing, found = now.standings[server.replica], now.found[server.replica]
        lines.append(f"replica {server.replica} on {server.hostname}: {_who(standing)}")
        lines += [f"  {line}" for line in _what(deployment, standing)]
        cut_off = [a for a in sorted(found.clients) if not _is_admitted(deployment, a)]
        if cut_off:
            who = ", ".join(cut_off)
            lines.append(f"  FIREWALL: {who} is connected, and will be cut off: not in clients")
    return "\n".join(lines)


def _who(standing: Standing) -> str:
    process = standing.process
    if process is None:
        said = {
            "ours": "runs as a deploy runs it",
            "stopped": "does not run, an adoption was cut off",
            "moved": "does not run, its data file is in its place",
        }
        return said.get(standing.state, "does not run")
    by = {
        "hand": f"by hand, as {process.user}",
        "unit": f"by {process.group}",
        "container": f"in the container {(process.container or ('?',))[0]}",
    }
    return f"pid {process.pid}, started {by[process.starter]}"


def _what(deployment: Deployment, standing: Standing) -> list[str]:
    index, process, file = standing.index, standing.process, standing.file
    if not standing.is_to_do:
        return ["nothing to do"]
    own = layout.data_path(deployment, index)
    lines, steps = [], []
    if process:
        lines.append(f"runs   {shlex.join(process.arguments)}")
        steps.append(process.stop)
    if standing.identity:
        lines.append(f"holds  {standing.identity}")
    if file:
        uid = file.owner.partition(":")[0]
        lines.append(f"file   {file.path}, of uid {uid}, {file.size:,} bytes")
        steps += [f"rename the file to {own}"] if file.path != own else []
    if process and (differs := _differing(deployment, process)):
        lines.append(f"differs {differs}")
    steps += [f"give it to {layout.USER}", f"start {deployment.cluster.replicas[index].name}"]
    return [*lines, f"to do  {'; '.join(steps)}"]


def _differing(deployment: Deployment, process: Process) -> str:
    """What ours will be given instead of what it has: sizes of caches, where metrics go."""
    given = start_arguments(deployment.cluster, "")[1:-1]
    ours = {name: value for name, _, value in (each.partition("=") for each in given)}
    names = sorted((ours.keys() | process.options.keys()) - {"--addresses"})
    told = [
        f"{name} {process.options.get(name, 'not given')}, then {ours.get(name, 'not given')}"
        for name in names
        if process.options.get(name) != ours.get(name)
    ]
    return "; ".join(told)


def _is_admitted(deployment: Deployment, client: str) -> bool:
    address = ip_address(client)
    admitted = firewall.admitted(deployment.cluster, deployment.of_servers)
    is_peer = address in [replica.ip for replica in deployment.cluster.replicas]
    return is_peer or address.is_loopback or any(address in network for network in admitted)


def _ask(deployment: Deployment) -> Mapping[int, Found]:
    def ask(server: Server) -> Found:
        done = ssh.run(server, foreign.command(deployment, server.replica))
        wanted = f"what {foreign.SCRIPT.name} prints"
        fix = "see what its shell is, and prints at a login"
        with understood(server.hostname, expected=wanted, fix=fix):
            return foreign.parse(done.stdout.splitlines())

    return ssh.on_each(deployment, ask)


def how(now: Survey) -> str:
    """Who runs what, in a line. Pure."""
    said = []
    for index, standing in now.standings.items():
        note = now.found[index].note
        is_ours = standing.state == "ours"
        line = f"replica {index} {'is adopted' if is_ours else _who(standing)}"
        if standing.state == "stopped" and note:
            line += f", its data file is {note.path}"
        said.append(line)
    return "; ".join(said)


@click.command()
@by_inventory
def main(file: str) -> None:
    """Take over replicas that somebody else has started, one after the other.

    Exit codes: 0 all are ours, 1 failed (the last line says how things are), 2 refused (nothing was
    touched).
    """
    deployment = tunnel.reached(inventory.read(file))
    now = survey(deployment)
    running = health.settled(lambda: health_of(deployment, now.of("foreign")))
    is_cut_off = bool(now.of("stopped", "moved"))
    refuse_unwell(now, running, None if is_cut_off else health.probe(deployment))
    adoption.check_release(
        deployment,
        {r.replica.index: r.pong.release for r in running if r.pong and r.process == "RUNNING"},
    )
    print(describe(deployment, now), flush=True)
    if not now.of("foreign", "stopped", "moved"):
        print("nothing to adopt: every replica runs as a deploy runs it")
        return
    fix = "CONFIRM=yes, if that is what you want; nothing was touched"
    confirm("adopt", since="each replica is stopped in its turn, and served by ours", fix=fix)
    try:
        with begun():
            phase.run(file, "tasks.adopt.adopt")
    except (KeyboardInterrupt, click.Abort, Failed) as error:
        with whole("looking at the replicas"):
            so = "a server does not say how it is"
            with suppress(Refusal):
                so = how(look(deployment))
        told = str(error) if isinstance(error, Failed) else "interrupted"
        kind = Failed if isinstance(error, Failed) else Interrupted
        raise kind(f"{told}; {so}. Fix: make adopt {deployment.named}") from None
    print("adopted: every replica runs as a deploy runs it, and the cluster commits")
