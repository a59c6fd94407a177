"""Whether the last load differs from earlier ones of its kind by more than these vary. Pure.

Of one kind are loads of the same scenario, machine and release. Repeated runs (`make load RUNS=5`)
are one measurement, and the variation is that between measurements: runs of one minute resemble
each other more than those of two days do. Ratios vary alike whatever their size, so all is reckoned
in logarithms. The range in which a further measurement is expected is Student's, at 99 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, stdev
from typing import Literal

from pydantic import Field

from loadtests.report.curve import Capacity
from loadtests.run.exit_codes import EXIT_FAILED, EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN
from loadtests.run.result import Audit, Manifest, Model, Result

#: Fewer earlier measurements say nothing of their variation; much older ones nothing of today.
EARLIER_MIN, EARLIER_MAX = 5, 20
#: A smaller difference is none: a bucket of the histogram is 1.1 % wide.
LEAST = 0.02
#: Windows that are equally long to this share, or to so many seconds: they begin on whole ones.
_SAME_DURATION, _SAME_DURATION_S = 0.1, 2.0

CAPACITY_FIGURE = "capacity actions/s"
#: Each figure that is judged, and whether more of it is better.
IS_MORE_BETTER = {"actions/s": True, "p50 ms": False, "p99 ms": False, CAPACITY_FIGURE: True}

Meaning = Literal["better", "worse", "no difference", "too few"]


class Entry(Model):
    """One run as it is kept: enough to be compared when its directory is gone."""

    manifest: Manifest
    duration_s: float
    verdict: str = Field(description="of the audit")
    is_whole: bool = Field(description="no worker missing, no fault, a search that found its end")
    p99_ms_bound: float | None = Field(description="of a capacity search; null for any other run")
    figures: dict[str, float]


def entry(result: Result, audit: Audit | None, search: Capacity | None) -> Entry:
    """What is kept of a finished run."""
    if search:
        figures = {CAPACITY_FIGURE: search.knee or 0.0}
    else:
        latency = result.window.latency
        figures = {"actions/s": result.window.actions_per_s}
        figures |= {"p50 ms": latency.p50_ms} if latency.p50_ms is not None else {}
        figures |= {"p99 ms": latency.p99_ms} if latency.p99_ms is not None else {}
    return Entry(
        manifest=result.manifest,
        duration_s=result.window.duration_s,
        verdict=audit.verdict if audit else "not audited",
        is_whole=result.complete and not result.faults and (search is None or search.is_known),
        p99_ms_bound=search.p99_ms if search else None,
        figures=figures,
    )


def kind(of: Entry) -> dict[str, str]:
    """What must be equal for two runs to be compared, but their duration.

    The machine goes without its name, and the cluster without its id: in CI both are new each time.
    """
    target, machine = of.manifest.target, of.manifest.machine
    settings = of.manifest.settings.model_dump(exclude={"seed"})
    settings["population"] = "earlier" if settings["population"] else "fresh"
    if of.p99_ms_bound is not None:
        settings |= {"rate": None, "p99 bound": of.p99_ms_bound}
    return {
        **{f"setting {name}": str(value) for name, value in settings.items()},
        "machine": f"{machine.cpus} x {machine.cpu_model}, {machine.memory_gib:.0f} GiB",
        "release": target.release,
        "engine": target.engine,
        "deployment": target.deployment,
        "addresses": "" if target.inventory else target.addresses,
    }


def differences(one: Entry, other: Entry) -> list[str]:
    """Why two runs are not of one kind; nothing when they are."""
    left, right = kind(one), kind(other)
    found = [
        f"{name}: {left.get(name, '')} / {right.get(name, '')}"
        for name in left | right
        if left.get(name) != right.get(name)
    ]
    apart = abs(one.duration_s - other.duration_s)
    allowed = max(_SAME_DURATION_S, _SAME_DURATION * one.duration_s)
    if one.p99_ms_bound is None and apart > allowed:
        found.append(f"seconds measured: {one.duration_s:.0f} / {other.duration_s:.0f}")
    return found


@dataclass(frozen=True)
class Measurement:
    """A run, or the runs of one group: the mean of what they found."""

    runs: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The group's or the run's id."""
        first = self.runs[0].manifest
        return first.group or first.run

    @property
    def started(self) -> float:
        """When its first run began."""
        return min(run.manifest.started for run in self.runs)

    @property
    def verdict(self) -> str:
        """The worst of its audits."""
        found = {run.verdict for run in self.runs}
        return next((v for v in ("failed", "unknown", "not audited") if v in found), "passed")

    @property
    def is_whole(self) -> bool:
        """Whether it may be taken for usual."""
        return self.verdict == "passed" and all(run.is_whole for run in self.runs)

    @property
    def figures(self) -> dict[str, float]:
        """Geometric means; 0 where a run had none of it."""
        names = {name for run in self.runs for name in run.figures}
        return {n: _mean([run.figures.get(n, 0.0) for run in self.runs]) for n in sorted(names)}


def measurements(entries: Iterable[Entry]) -> list[Measurement]:
    """Entries by group, the oldest first."""
    grouped: dict[str, list[Entry]] = {}
    for one in entries:
        grouped.setdefault(one.manifest.group or one.manifest.run, []).append(one)
    return sorted((Measurement(tuple(g)) for g in grouped.values()), key=lambda m: m.started)


def earlier(last: Measurement, known: Sequence[Measurement]) -> list[Measurement]:
    """Those before it that it can be judged by, the oldest first."""
    return [
        one
        for one in known
        if one.started < last.started
        and one.is_whole
        and not any(differences(last.runs[0], run) for run in one.runs)
    ][-EARLIER_MAX:]


@dataclass(frozen=True)
class Judgement:
    """One figure of the last measurement, and the range in which it was expected."""

    name: str
    last: float
    usual: float | None
    low: float | None
    high: float | None
    meaning: Meaning


def judge(last: Measurement, before: Sequence[Measurement]) -> list[Judgement]:
    """Every figure of the last one."""
    return [
        _judged(name, value, [one.figures.get(name, 0.0) for one in before])
        for name, value in last.figures.items()
    ]


def _judged(name: str, value: float, values: Sequence[float]) -> Judgement:
    logs = [log(one) for one in values if one > 0]
    if len(logs) < EARLIER_MIN:
        return Judgement(name, value, None, None, None, "too few")
    middle, count = fmean(logs), len(logs)
    around = max(log(1 + LEAST), student(count - 1) * stdev(logs) * sqrt(1 + 1 / count))
    low, high = exp(middle - around), exp(middle + around)
    meaning: Meaning = "no difference"
    if not low <= value <= high:
        meaning = "better" if (value > high) is IS_MORE_BETTER[name] else "worse"
    return Judgement(name, value, exp(middle), low, high, meaning)


def student(freedom: int) -> float:
    """Student's t that 99 % do not exceed on either side (Cornish and Fisher: 1.3 % off at 4)."""
    z = 2.5758
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def exit_code(last: Measurement, found: Sequence[Judgement]) -> int:
    """Audit and trend in one number: a wrong ledger is worse than a slow one."""
    if last.verdict == "failed":
        return EXIT_FAILED
    is_measured = last.verdict == "passed" and all(run.is_whole for run in last.runs)
    if not is_measured or not found or any(one.meaning == "too few" for one in found):
        return EXIT_UNKNOWN
    return EXIT_MISSED if any(one.meaning == "worse" for one in found) else EXIT_PASSED


def _mean(values: Sequence[float]) -> float:
    return exp(fmean(map(log, values))) if min(values) > 0 else 0.0


def by_run(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    """Entries by the run's id: of two with one id, the later."""
    return {one.manifest.run: one for one in entries}
