"""``make load-history``: keep the figures of all loads, and judge the last by those of its kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.command import if_inventory
from cluster.refusal import Refusal
from loadtests.report import trend
from loadtests.report.curve import read_capacity
from loadtests.report.plots import Line, figure
from loadtests.report.report import page
from loadtests.report.trend import Entry, Judgement, Measurement
from loadtests.run import chosen, runs
from loadtests.run.exit_codes import EXIT_FAILED, EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN
from loadtests.run.result import read_audit, read_result, reading

FILE = "load-history.jsonl"
_WORDS = {
    EXIT_PASSED: "no worse",
    EXIT_FAILED: "audit failed",
    EXIT_MISSED: "worse",
    EXIT_UNKNOWN: "unknown",
}


def read(file: Path) -> list[Entry]:
    """What was kept, a run a line; nothing while there is no file. Raises Refusal."""
    if not file.is_file():
        return []
    with reading(file):
        lines = file.read_text(encoding="utf-8").splitlines()
        return [Entry.model_validate_json(line) for line in lines if line.strip()]


def of_run(run: Path) -> Entry | None:
    """The entry of a run in its directory; None for one that did not end. Raises Refusal."""
    result = read_result(run)
    return trend.entry(result, read_audit(run), read_capacity(run)) if result else None


def collect(file: Path) -> tuple[list[Entry], list[str]]:
    """What was kept and every run that is there now, the oldest first; and what cannot be read.

    A run whose audit has said passed or failed is not read again. Raises Refusal for the file.
    """
    known, unread = dict(trend.by_run(read(file))), []
    for run in runs.newest_first("result.json"):
        kept = known.get(run.name)
        if kept and kept.verdict in ("passed", "failed"):
            continue
        try:
            found = of_run(run)
        except Refusal as error:
            unread.append(f"{run.name} is left out: {error}")
            continue
        if found:
            known[found.manifest.run] = found
    return sorted(known.values(), key=lambda one: one.manifest.started), unread


def write(file: Path, entries: list[Entry]) -> None:
    """Keep them. Raises Refusal where that cannot be written."""
    try:
        runs.write_json(file, "\n".join(one.model_dump_json() for one in entries))
    except OSError as error:
        fix = "name a file in a directory that you may write to"
        raise Refusal("HISTORY", expected=f"{file} to be written", found=error, fix=fix) from None


def render(last: Measurement, before: list[Measurement], found: list[Judgement]) -> str:
    """The page: a plot for each figure, every measurement a point."""
    return page(
        "history.html.j2",
        last=last,
        before=before,
        found=found,
        word=_WORDS[trend.exit_code(last, found)],
        target=last.runs[0].manifest.target,
        kind={k: v for k, v in trend.kind(last.runs[0]).items() if v and v != "None"},
        charts=[_chart(one, before) for one in found],
    )


def _chart(one: Judgement, before: list[Measurement]) -> dict[str, Any]:
    end = float(len(before) + 1)
    usual = [(float(i + 1), each.figures.get(one.name)) for i, each in enumerate(before)]
    lines = [Line("earlier", usual, 1), Line("the last", [(end, one.last)], 4)]
    for label, value in (("expected at most", one.high), ("expected at least", one.low)):
        if value is not None:
            lines.append(Line(label, [(1.0, value), (end, value)], 6))
    return figure(
        one.name, lines, unit="each measurement, the oldest first", x_unit="", x_max=end + 0.5
    )


def table(found: list[Judgement]) -> Table:
    """The judgement for a terminal."""
    shown = Table("", "last", "usual", "expected", "last/usual", "", title="load history")
    for one in found:
        usual, expected, ratio = "", "", ""
        if one.usual is not None and one.low is not None and one.high is not None:
            usual, ratio = f"{one.usual:,.2f}", f"{one.last / one.usual:.2f}"
            expected = f"{one.low:,.2f} to {one.high:,.2f}"
        shown.add_row(one.name, f"{one.last:,.2f}", usual, expected, ratio, one.meaning)
    return shown


def _of(name: str, known: list[Measurement]) -> Measurement | None:
    """The measurement that a run belongs to; None for one that has no result."""
    return next((m for m in known if name in {run.manifest.run for run in m.runs}), None)


def _why(last: Measurement, before: list[Measurement], entries: list[Entry]) -> str:
    """Why nothing can be said of the last measurement."""
    if last.verdict != "passed":
        return f"its audit: {last.verdict}. Fix: make audit {last.runs[0].manifest.target.named}"
    if not last.is_whole:
        return "a worker is missing, there was a fault, or a search was disturbed. Fix: repeat it"
    ids = {run.manifest.run for run in last.runs}
    others = [one for one in entries if one.manifest.run not in ids]
    unlike = trend.differences(others[-1], last.runs[0]) if others else []
    told = f"; {others[-1].manifest.run} is of another kind: {unlike[0]}" if unlike else ""
    return (
        f"{len(before)} earlier of the same scenario, machine and release, "
        f"{trend.EARLIER_MIN} are needed{told}. Fix: repeat the load, the same way"
    )


@click.command()
@if_inventory
@click.option("--run", "name", help="The run to judge; default: the cluster's newest.")
@click.option("--history", "kept", type=Path, help=f"Where figures are kept; default: runs/{FILE}.")
def main(file: str | None, name: str | None, kept: Path | None) -> int:
    """Keep the figures of all loads, and judge the last by earlier ones of its kind.

    Exit codes: 0 no worse, 1 audit failed, 2 wrong usage, 3 worse by more than their variation,
    4 unknown (too few of the kind, or not audited).
    """
    run, kept = chosen.run(name, file), kept or runs.directory() / FILE
    entries, unread = collect(kept)
    write(kept, entries)
    for line in unread:
        print(line, file=sys.stderr)
    known = trend.measurements(entries)
    last = _of(run.name, known)
    if last is None:
        print(
            f"load-history: unknown: {run.name} was cut off: it has no result.json. Fix: repeat it"
        )
        return EXIT_UNKNOWN
    before = trend.earlier(last, known)
    found = trend.judge(last, before)
    shown = kept.with_suffix(".html")
    runs.write_json(shown, render(last, before, found))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table(found))
    code = trend.exit_code(last, found)
    said = f"{len(before)} earlier, figures kept in {kept}, plot: {shown}"
    if code == EXIT_UNKNOWN:
        said = _why(last, before, entries)
    print(
        f"load-history: {_WORDS[code]}: {last.name} of {last.runs[0].manifest.target.whose}: {said}"
    )
    return code
