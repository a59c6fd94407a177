"""Each replica and the cluster, for a person or for a program: what ``make status`` shows."""

from __future__ import annotations

import json
import sys
import time
from typing import Literal

from pydantic import BaseModel, Field
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster import REPOSITORY
from cluster.config.deployment import Deployment, Engine
from cluster.health import health
from cluster.health.health import ReplicaHealth
from cluster.refusal import Refusal, refusal_of
from cluster.runtimes import of
from cluster.tigerbeetle.canary import Canary, Probe

Verdict = Literal["healthy", "degraded", "down", "unknown"]
EXIT_CODES: dict[Verdict, int] = {"healthy": 0, "degraded": 1, "down": 3, "unknown": 4}
COLOURS = {"healthy": "green", "degraded": "yellow", "down": "red", "unknown": "magenta"}
_WIDTH_OF_PIPE = 120
SCHEMA_FILE = REPOSITORY / "docs" / "status.schema.json"


class CanaryStatus(BaseModel, extra="forbid", frozen=True):
    """Whether one transfer was committed and read back; milliseconds, 0 when it was not."""

    commits: bool
    detail: str
    commit_ms: float
    read_ms: float


class ReplicaStatus(BaseModel, extra="forbid", frozen=True):
    """One replica, from its port up to its part in the cluster."""

    index: int
    address: str
    process: str = Field(description="RUNNING, or what it is instead; DOWN when there is none")
    pid: int = Field(description="0 when there is none")
    port_open: bool
    answers: bool = Field(description="to a ping of the protocol: its loop turns")
    ping_ms: float | None
    wedged: bool = Field(description="port open, but it does not work: no answer, or cut off")
    wedged_because: str = Field(description="silent, old view, hears no primary; or empty")
    role: str = Field(description="primary, backup, or the status that keeps it from being either")
    view: int | None
    release: str = Field(description="empty when it has not said")
    panics: int = Field(description="in the log that is kept")


class Status(BaseModel, extra="forbid", frozen=True):
    """What ``make status JSON=yes`` prints."""

    deployment: str
    engine: Engine
    engine_label: str
    cluster_id: str = Field(description="decimal")
    verdict: Verdict
    reason: str = Field(description="why, in a few words")
    canary: CanaryStatus | None = Field(description="null when it was not asked for")
    replicas: list[ReplicaStatus] = Field(description="empty when nothing could be read")


def judge(replicas: list[ReplicaHealth], canary: Canary | None) -> tuple[Verdict, str]:
    """The cluster's verdict, and why. Commits decide; a missing replica degrades.

    Without a canary a majority in normal status, one of them primary, stands for commits.
    """
    normal = [r for r in replicas if r.is_normal]
    is_down = not canary.commits if canary else 2 * len(normal) <= len(replicas)
    # Who lets no command in carries no tunnel either, and its replica may be well.
    unseen = ", ".join(str(r) for r in replicas if not (r.is_known or (canary and r.port_open)))
    if is_down and (fix := health.remedy(unseen, "")):
        return "unknown", f"{unseen}: {fix}"
    if canary is not None and not canary.commits:
        return "down", canary.detail
    if canary is None:
        if 2 * len(normal) <= len(replicas):
            return "down", f"{len(normal)} of {len(replicas)} replicas are normal: no majority"
        if not any(r.log.is_primary for r in normal):
            return "down", "no replica is primary"
    if missing := ", ".join(str(r) for r in replicas if not r.is_normal):
        fix = health.remedy(missing, "")
        return "degraded", f"{missing}: {fix}" if fix else missing
    return "healthy", "it commits" if canary else "all replicas are normal"


def read(deployment: Deployment, client: Probe | None = None) -> Status:
    """The status now. What cannot be read ends in the verdict ``unknown``.

    ``client`` is a canary that connects; without one, what the replicas answer decides.
    """
    unknown = Status(
        deployment=deployment.name,
        engine=deployment.engine,
        engine_label=deployment.label,
        cluster_id=str(deployment.cluster.id),
        verdict="unknown",
        reason="",
        canary=None,
        replicas=[],
    )
    canary = None
    try:
        of(deployment).check_readable()
        replicas = health.of_replicas(deployment)
        if client:
            is_open = any(r.port_open for r in replicas)
            silent = Canary(False, "no port answers")
            canary = client.result(health.PROBE_TIMEOUT_S) if is_open else silent
    except (OSError, Refusal) as error:
        return unknown.model_copy(update={"reason": str(refusal_of(error))})
    if replicas and not any(r.is_known or r.port_open for r in replicas):
        told = ", ".join(map(str, replicas))
        reason = f"no server can be asked: {health.remedy(told, told)}"
        return unknown.model_copy(update={"reason": reason})
    verdict, reason = judge(replicas, canary)
    return unknown.model_copy(
        update={
            "verdict": verdict,
            "reason": reason,
            "canary": CanaryStatus(**vars(canary)) if canary else None,
            "replicas": [_replica(r) for r in replicas],
        }
    )


def _replica(r: ReplicaHealth) -> ReplicaStatus:
    return ReplicaStatus(
        index=r.replica.index,
        address=r.replica.address,
        process=r.process,
        pid=r.pid,
        port_open=r.port_open,
        answers=r.pong is not None,
        ping_ms=r.pong.ms if r.pong else None,
        wedged=r.wedged_because != "",
        wedged_because=r.wedged_because,
        role=r.log.role,
        view=r.pong.view if r.log.view is None and r.pong else r.log.view,
        release=r.pong.release if not r.log.release and r.pong else r.log.release,
        panics=len(r.log.panics),
    )


def drawn(status: Status) -> Group:
    """The status as a person reads it."""
    title = f"{status.engine_label} · cluster {status.cluster_id}"
    table = Table(title=title, show_edge=False, pad_edge=False)  # so that 80 columns hold it
    for column in ("replica", "address", "process", "pid", "answers", "role", "view", "release"):
        table.add_column(column, no_wrap=True)
    for r in status.replicas:
        view = "-" if r.view is None else str(r.view)
        process = (r.process, str(r.pid or "-"), _answers(r))
        table.add_row(str(r.index), r.address, *process, r.role, view, r.release or "-")
    said = ""
    if status.canary:
        timing = f" in {status.canary.commit_ms:g} ms" if status.canary.commits else ""
        said = f"canary: {status.canary.detail}{timing}\n"
    verdict = Text(f"{said}cluster: ")
    verdict.append(status.verdict, style=f"bold {COLOURS[status.verdict]}")
    verdict.append(f" ({status.reason})")
    return Group(table, verdict)


def _answers(r: ReplicaStatus) -> Text:
    if r.wedged:
        return Text(f"WEDGED: {r.wedged_because}", style="bold red")
    if not r.port_open:
        return Text("port closed")
    return Text(f"{r.ping_ms:.1f} ms" if r.ping_ms is not None else "-")


def show(deployment: Deployment, client: Probe | None, *, as_json: bool) -> int:
    """Print the status for a person or, as JSON, for a program; the exit code of its verdict."""
    status = read(deployment, client)
    if as_json:
        print(status.model_dump_json(indent=2))
    else:
        # A file or a pipe has no width; nothing is cut there.
        Console(width=None if sys.stdout.isatty() else _WIDTH_OF_PIPE).print(drawn(status))
    return EXIT_CODES[status.verdict]


def watch(deployment: Deployment, every_s: float) -> int:
    """Show the status again and again until Ctrl-C; the exit code of the last verdict."""
    verdict: Verdict = "unknown"
    try:
        with Live(console=Console(), refresh_per_second=4) as live:
            while True:
                status = read(deployment)
                verdict = status.verdict
                live.update(drawn(status))
                time.sleep(every_s)
    except KeyboardInterrupt:
        return EXIT_CODES[verdict]


def schema() -> str:
    """The JSON schema of a Status, as ``docs/status.schema.json`` has it."""
    return json.dumps(Status.model_json_schema(), indent=1) + "\n"
