"""The result of a run: the manifest before it, the figures after it, the audit's finding.

The models are the published schema (docs/load-result.schema.json): other programs read these files.
Times are unix seconds, durations milliseconds (``_ms``) or seconds (``_s``).
"""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field

from cluster.refusal import understood

Verdict = Literal["passed", "failed", "unknown"]

#: Raised when a field changes its meaning or goes away; new fields do not count.
SCHEMA_VERSION = 1
#: Whose history is recorded, where there is no manifest.
TARGET = "target.json"


class Model(BaseModel, extra="forbid"):
    """Strict about what it reads: a typo in a file is an error, not a default."""


File = TypeVar("File", bound=Model)


class Target(Model):
    """The cluster that was loaded."""

    deployment: str = Field(description="inventory name, or 'addresses' when given by hand")
    engine: str = Field(description="tigerbeetle, emulator or undeclared")
    label: str = Field(description="the engine as every report must name it")
    release: str
    cluster_id: str = Field(description="decimal: 128 bits exceed JSON numbers")
    addresses: str = Field(description="where clients find it: never a tunnel's end")
    inventory: str = Field(
        default="", description="the file that says how to reach it; empty: at these addresses"
    )

    @property
    def whose(self) -> str:
        """The cluster, in words that tell it from every other."""
        return f"cluster {self.cluster_id} ({self.deployment}, {self.engine})"

    @property
    def named(self) -> str:
        """Its inventory, to be pasted behind ``make`` and a target; empty where there was none."""
        return f"INVENTORY={shlex.quote(self.inventory)}" if self.inventory else ""

    def is_of(self, other: Target) -> bool:
        """Whether both are one cluster, wherever it is and whatever file describes it."""
        return (self.cluster_id, self.deployment, self.engine) == (
            other.cluster_id,
            other.deployment,
            other.engine,
        )


class Settings(Model):
    """How it was loaded."""

    users: int
    user_classes: list[str]
    mode: Literal["closed", "open"]
    rate: float | None = Field(description="open loop: intended actions/s at the profile's peak")
    profile: str
    wallets: int = Field(description="wallets of each worker, one account per asset each")
    skew: float
    warmup_s: float
    deadline_s: float
    seed: int
    processes: int
    scenario: str = Field(default="", description="whose options these are; empty: none")
    actions: dict[str, int] = Field(
        default_factory=dict, description="weights of what a WalletUser does"
    )
    population: str = Field(
        default="", description="the run that has made the wallets; empty: this one"
    )


class Machine(Model):
    """Where the load came from."""

    host: str
    cpus: int
    cpu_model: str
    memory_gib: float
    system: str
    python: str
    client_release: str
    locust: str


class Manifest(Model):
    """run.json: written before the first transfer, so that even a crashed run can be audited."""

    schema_version: int = SCHEMA_VERSION
    run: str
    tag: str = Field(description="user_data_64 of every transfer of the run, decimal")
    started: float
    group: str = Field(default="", description="shared by the runs of one repeated measurement")
    target: Target
    settings: Settings
    machine: Machine


class Latency(Model):
    """Percentiles in milliseconds; null when nothing was measured."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None


class Parts(Model):
    """What a mean latency consists of; its parts add up to it."""

    actions: int
    no_user_ms: float = Field(description="open loop: until a user of the pool was free")
    waiting_ms: float = Field(description="for the packet in flight, before its own was sent")
    packet_ms: float = Field(description="from sending its packet until the client had the answer")
    generator_ms: float = Field(description="the rest: the generator itself was late")

    @property
    def mean_ms(self) -> float:
        """All of it."""
        return self.no_user_ms + self.waiting_ms + self.packet_ms + self.generator_ms


class Composition(Model):
    """What latency consists of within the measured window."""

    all: Parts
    median: Parts = Field(description="those as long as the median, to a tenth")
    slowest: Parts = Field(description="the slowest hundredth, and those as long as its fastest")


class ActionResult(Model):
    """One kind of action within the measured window."""

    ok: int
    rejected: int
    unknown: int
    error: int
    reasons: dict[str, int]
    per_s: float
    latency: Latency
    buckets: dict[int, int] = Field(description="log buckets, see loadtests/run/histogram.py")
    parts: Parts | None = Field(default=None, description="null when nothing was measured")


class Figures(Model):
    """The measured window: after the warm-up, until the users were told to stop."""

    duration_s: float
    actions: int
    actions_per_s: float
    transfers: int = Field(description="transfers acknowledged")
    transfers_per_s: float
    requests: int = Field(description="packets of transfers, each one request on the wire or less")
    transfers_per_request: float
    ok: int
    rejected: int
    unknown: int
    error: int
    drops: int = Field(description="open loop: intended actions that could not start in time")
    latency: Latency = Field(description="per action, from the intended instant in open loop")
    composition: Composition | None = Field(
        default=None, description="of that latency; null when nothing was measured"
    )
    request_latency: Latency = Field(description="per packet of transfers")
    hub_lag: Latency = Field(description="how late the generator itself was")
    generator_cpu_percent: float = Field(description="of one core, mean of the busiest process")
    network_percent: float = Field(
        default=0.0, description="of an interface's speed, at the busiest worker; 0 if not known"
    )


class WorkerResult(Model):
    """One worker within the measured window."""

    worker: int
    host: str = Field(description="the load host's name, or the machine's own")
    actions_per_s: float
    transfers_per_s: float
    latency: Latency
    hub_lag: Latency
    cpu_percent: float = Field(description="of one core")
    clock_offset_ms: float | None = Field(
        description="ahead of the master's machine, asked before the run; null where nobody asked"
    )
    rtt_ms: float | None = Field(
        default=None, description="to connect to the nearest replica, from a load host"
    )
    complete: bool = Field(description="false when its last figures or its record are missing")


class Point(Model):
    """One second of the run, all workers together."""

    at: float
    ok: int
    rejected: int
    unknown: int
    error: int
    transfers: int
    requests: int
    drops: int
    users: int
    p50_ms: float | None
    p99_ms: float | None
    lag_max_ms: float
    generator_cpu_percent: float


class ServerPoint(Model):
    """One replica process at one instant, where it runs on the same machine."""

    at: float
    replica: str
    cpu_percent: float
    rss_mib: float
    read_mib_s: float
    write_mib_s: float


class Fault(Model):
    """Something that happened to the cluster during the run."""

    at: float
    what: str


class Result(Model):
    """result.json: what was measured."""

    schema_version: int = SCHEMA_VERSION
    manifest: Manifest
    ended: float
    complete: bool = Field(description="false when a worker's figures or record are missing")
    workers: int
    transfers_sent: int = Field(description="lines in the record, funding included")
    transfers_acknowledged: int = Field(description="acknowledged in the whole run, no funding")
    actions_per_s: float = Field(description="of the window, for who wants a single figure")
    unanswered: int = Field(description="sent, and without an answer when the run ended")
    window: Figures
    actions: dict[str, ActionResult]
    by_worker: list[WorkerResult] = Field(default=[], description="each process that sent load")
    series: list[Point]
    servers: list[ServerPoint]
    faults: list[Fault]
    notes: list[str] = Field(description="what a reader must know before believing the figures")


class Check(Model):
    """One thing the audit proved, refuted, or could not read."""

    name: str
    verdict: Verdict
    detail: str


class Audit(Model):
    """audit.json: the proof over the ledger."""

    schema_version: int = SCHEMA_VERSION
    run: str
    cluster: str = Field(default="", description="whose ledger was read: its id, name and engine")
    verdict: Verdict
    checks: list[Check]
    transfers_checked: int
    accounts_checked: int
    unknown_resolved: dict[str, int] = Field(description="committed / absent, of those unanswered")
    seconds: float
    peak_rss_mib: float


def read_target(run: Path) -> Target | None:
    """The cluster whose history was recorded; None where nobody knows. Raises Refusal."""
    path = run / TARGET
    return _read(path, Target) if path.is_file() else None


def read_manifest(run: Path) -> Manifest:
    """The manifest in a run's directory. Raises Refusal."""
    return _read(run / "run.json", Manifest)


def read_result(run: Path) -> Result | None:
    """The result in a run's directory; None while there is none. Raises Refusal."""
    path = run / "result.json"
    return _read(path, Result) if path.is_file() else None


def read_audit(run: Path) -> Audit | None:
    """The audit in a run's directory; None while there is none. Raises Refusal."""
    path = run / "audit.json"
    return _read(path, Audit) if path.is_file() else None


def reading(path: Path) -> AbstractContextManager[None]:
    """Within, a file of a run is read: one that cannot be understood raises Refusal."""
    fix = "bring it back, or remove its run's directory"
    return understood(path, expected="what a run writes", fix=fix)


def _read(path: Path, model: type[File]) -> File:
    with reading(path):
        return model.model_validate_json(path.read_text(encoding="utf-8"))
