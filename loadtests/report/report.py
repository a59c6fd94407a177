"""One self-contained HTML file for a run: ``make report``.

It needs no script, font or other outside resource: it can be mailed, archived and read on a phone.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cluster.command import if_inventory
from loadtests.report import curve, gate, plots
from loadtests.report.plots import Line, figure
from loadtests.run import chosen, runs
from loadtests.run.conductor import GENERATOR_CPU_LIMIT
from loadtests.run.histogram import BUCKETS_PER_DOUBLING, Histogram, seconds_of
from loadtests.run.result import (
    Audit,
    Manifest,
    Parts,
    Result,
    read_audit,
    read_manifest,
    read_result,
)

TEMPLATES = Path(__file__).parent / "templates"
_BARS_PER_DOUBLING = 4
#: A second is sampled a little late on a busy machine; this long is a gap.
_GAP_S = 3.0


def write(run: Path) -> Path:
    """Write report.html from what the run's directory holds so far; the file's path."""
    path = run / "report.html"
    runs.write_json(path, render(read_manifest(run), read_result(run), read_audit(run), run))
    return path


def render(manifest: Manifest, result: Result | None, audit: Audit | None, run: Path) -> str:
    """The page. Without an audit the verdict is 'not audited', so nobody takes it for passed."""
    searched = curve.read_capacity(run)
    return page(
        "report.html.j2",
        manifest=manifest,
        result=result,
        audit=audit,
        gate=gate.read_findings(run),
        verdict=audit.verdict if audit else "not audited",
        capacity=searched,
        curve=curve.rows(searched) if searched else [],
        charts=[*(curve.charts(searched) if searched else []), *(charts(result) if result else [])],
        actions=_rows(result) if result else [],
        parts=_parts(result) if result else [],
        start=_start(result) if result else manifest.started,
        generator_cpu_limit=GENERATOR_CPU_LIMIT,
    )


def page(template: str, **shown: Any) -> str:
    """One of our templates, filled in."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"number": number, "ms": milliseconds, "clock": clock}
    return environment.get_template(template).render(shown)


def charts(result: Result) -> list[dict[str, Any]]:
    """The plots, each with a title, a legend and its SVG."""
    start = _start(result)
    marks = [(fault.at - start, fault.what) for fault in result.faults]
    warmup = (0.0, result.manifest.settings.warmup_s)
    span = max((p.at - start for p in result.series), default=1.0)
    busy_s = warmup[1] + result.window.duration_s  # then come the last answers, and the closing
    common: dict[str, Any] = {"marks": marks, "shade": warmup, "x_max": span}

    def over_time(name: str) -> list[tuple[float, float | None]]:
        return [(p.at - start, getattr(p, name)) for p in result.series]

    answered = [(p.at - start, float(p.ok + p.rejected)) for p in result.series]
    throughput = [
        Line("transfers acknowledged/s", over_time("transfers"), 1, filled=True),
        Line("actions answered/s", answered, 2),
    ]
    if any(p.drops for p in result.series):
        throughput.append(Line("dropped/s", over_time("drops"), 4))
    if any(p.unknown for p in result.series):
        throughput.append(Line("unknown/s", over_time("unknown"), 3))
    cpu = [
        (p.at - start, p.generator_cpu_percent if p.at - start <= busy_s else None)
        for p in result.series
    ]
    latency = [Line("p99", over_time("p99_ms"), 4), Line("p50", over_time("p50_ms"), 1)]
    load = [Line("generator, busiest process", cpu, 6), *_by_replica(result, start)]
    return [
        figure("Throughput", throughput, unit="per second", **common),
        figure("Latency over time", latency, unit="ms, logarithmic", log=True, **common),
        {
            "title": "Latency distribution",
            "legend": [],
            "svg": _distribution(result),
            "note": "all actions within the measured window",
        },
        figure("CPU", load, unit="% of one core", **common),
    ]


def _by_replica(result: Result, start: float) -> list[Line]:
    points = result.servers
    names = sorted({point.replica for point in points})
    peak = {n: max(p.rss_mib for p in points if p.replica == n) for n in names}
    return [
        Line(
            f"replica {name} ({peak[name] / 1024:.1f} GiB)",
            _with_gaps([(p.at - start, p.cpu_percent) for p in points if p.replica == name]),
            1 + index % 5,
        )
        for index, name in enumerate(names)
    ]


def _with_gaps(points: list[tuple[float, float]]) -> list[tuple[float, float | None]]:
    """Break the line where a replica was away: nothing was measured there."""
    broken: list[tuple[float, float | None]] = []
    for x, y in points:
        if broken and x - broken[-1][0] > _GAP_S:
            broken.append((x, None))
        broken.append((x, y))
    return broken


def _distribution(result: Result) -> str:
    total = Histogram(*(action.buckets for action in result.actions.values()))
    group = BUCKETS_PER_DOUBLING // _BARS_PER_DOUBLING
    sums = Counter[int]()
    for bucket, count in total.buckets.items():
        sums[bucket // group] += count
    half = 2 ** (0.5 / BUCKETS_PER_DOUBLING)
    bars = [
        (
            seconds_of(bar * group) * 1000 / half,
            seconds_of((bar + 1) * group) * 1000 / half,
            100 * sums[bar] / max(1, total.total),
        )
        for bar in (range(min(sums), max(sums) + 1) if sums else ())
    ]
    latency = result.window.latency
    marks = [("p50", latency.p50_ms), ("p95", latency.p95_ms), ("p99", latency.p99_ms)]
    named = [(value, label) for label, value in marks if value is not None]
    return plots.histogram(bars, named, "Latency distribution")


def _rows(result: Result) -> list[dict[str, Any]]:
    most = max((a.per_s for a in result.actions.values()), default=0.0) or 1.0
    rows = [
        {"name": name, "action": action, "share": 100 * action.per_s / most}
        for name, action in result.actions.items()
    ]
    return sorted(rows, key=lambda row: -row["share"])


def _parts(result: Result) -> list[tuple[str, Parts]]:
    """What latency consists of: of all actions, and of each kind, the most frequent first."""
    found = result.window.composition
    if found is None:
        return []
    whole = [("all actions", found.all), ("about the median", found.median)]
    whole += [("the slowest 1 %", found.slowest)]
    named = sorted(result.actions.items(), key=lambda named: -named[1].per_s)
    return [*whole, *((name, action.parts) for name, action in named if action.parts)]


def _start(result: Result) -> float:
    return min((p.at for p in result.series), default=result.manifest.started) - 1.0


def number(value: float) -> str:
    """With thousands separators, and no false precision."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"


def milliseconds(value: float | None) -> str:
    """Three significant digits and the unit; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def clock(at: float) -> str:
    """UTC, as a person writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


@click.command()
@if_inventory
@click.option("--run", "name", help="Run id or directory; default: the cluster's newest.")
def main(file: str | None, name: str | None) -> None:
    """Write a run's HTML report again."""
    print(write(chosen.run(name, file)))
