"""Two runs, or two groups of repeated runs, side by side: ``make load-compare A= B=``.

The runs of a group (`make load RUNS=5`) vary. Only a difference well beyond that means anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev

import click
from rich.console import Console
from rich.table import Table

from cluster.command import if_inventory
from cluster.refusal import Refusal
from loadtests.run import chosen, runs
from loadtests.run.result import Result, read_audit, read_manifest, read_result

FIGURES: dict[str, Callable[[Result], float | None]] = {
    "actions/s": lambda r: r.window.actions_per_s,
    "transfers/s": lambda r: r.window.transfers_per_s,
    "p50 ms": lambda r: r.window.latency.p50_ms,
    "p95 ms": lambda r: r.window.latency.p95_ms,
    "p99 ms": lambda r: r.window.latency.p99_ms,
    "p99.9 ms": lambda r: r.window.latency.p999_ms,
    "request p99 ms": lambda r: r.window.request_latency.p99_ms,
    "unknown or failed": lambda r: float(r.window.unknown + r.window.error),
    "dropped": lambda r: float(r.window.drops),
    "generator CPU %": lambda r: r.window.generator_cpu_percent,
}


@dataclass(frozen=True)
class Difference:
    """One figure of A and B: means, ratio, and whether the variation explains it."""

    name: str
    a: float
    b: float
    ratio: float | None
    meaning: str


def load(name: str, inventory: str | None = None) -> list[Result]:
    """The results of a run or of a group, of one cluster where one is named. Raises Refusal."""
    members = [
        path.parent
        for path in sorted(runs.directory().glob("*/run.json"))
        if read_manifest(path.parent).group == name
    ] or [runs.find(name)]
    for member in members if inventory else ():
        chosen.run(str(member), inventory)
    # Not their seconds: a group of long runs would be many of those, and nobody asks for them here.
    brief: dict[str, list[object]] = {"series": [], "servers": []}
    results = [
        result.model_copy(update=brief) for member in members if (result := read_result(member))
    ]
    if not results:
        raise Refusal(
            name,
            expected="a finished run",
            found="none with a result.json",
            fix=f"name one that has one (ls {runs.directory()}), or repeat it",
        )
    return results


def differences(a: list[Result], b: list[Result]) -> list[Difference]:
    """Every figure both sides have."""
    found = []
    for name, figure in FIGURES.items():
        left = [value for result in a if (value := figure(result)) is not None]
        right = [value for result in b if (value := figure(result)) is not None]
        if left and right:
            one, two = fmean(left), fmean(right)
            ratio = two / one if one else None
            found.append(Difference(name, one, two, ratio, _meaning(left, right)))
    return found


def _meaning(left: list[float], right: list[float]) -> str:
    """Whether two samples differ by more than twice their standard error."""
    if len(left) < 2 or len(right) < 2:
        return "one run each: variation not known" if left != right else "equal"
    error = (stdev(left) ** 2 / len(left) + stdev(right) ** 2 / len(right)) ** 0.5
    apart = abs(fmean(left) - fmean(right))
    return "differs" if apart > 2 * error and apart > 0 else "within the variation"


def settings_that_differ(a: Result, b: Result) -> list[str]:
    """What makes a comparison unfair: another engine, machine or setting."""
    sides = []
    for result in (a, b):
        manifest = result.manifest
        flat = {f"setting {k}": v for k, v in manifest.settings.model_dump().items()}
        flat |= {f"machine {k}": v for k, v in manifest.machine.model_dump().items()}
        flat |= {"cluster": manifest.target.whose, "release": manifest.target.release}
        sides.append(flat)
    left, right = sides
    return [f"{key}: {left[key]} / {right[key]}" for key in left if left[key] != right[key]]


@click.command()
@if_inventory
@click.argument("names", metavar="A B", nargs=2)
def main(file: str | None, names: tuple[str, str]) -> None:
    """Compare two runs, A and B: each a run id, or the group id of repeated runs."""
    a, b = (load(name, file) for name in names)
    table = Table(title="load compared")
    for column in ("", f"A: {names[0]} ({len(a)})", f"B: {names[1]} ({len(b)})", "B/A", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    for row in differences(a, b):
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, f"{row.a:,.2f}", f"{row.b:,.2f}", ratio, row.meaning)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for name, results in (("A", a), ("B", b)):
        console.print(f"  {name} is of {results[0].manifest.target.whose}")
    for difference in settings_that_differ(a[0], b[0]):
        console.print(f"  not the same: {difference}")
    for name, results in (("A", a), ("B", b)):
        audits = [read_audit(runs.directory() / result.manifest.run) for result in results]
        bad = [audit.verdict if audit else "not audited" for audit in audits]
        if any(verdict != "passed" for verdict in bad):
            console.print(f"  {name} is not to be believed: audit {', '.join(bad)}")
