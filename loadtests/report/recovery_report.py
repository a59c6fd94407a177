"""The table of recovery times: as text, as recovery.json, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests.proof.proof import verdict_of
from loadtests.report import plots, report
from loadtests.report.recovery import Recoveries, table
from loadtests.run import runs
from loadtests.run.result import Check

HEADINGS = (
    "deployment",
    "fault",
    "times",
    "no answer (median / longest)",
    "repair to healthy",
    "acknowledged meanwhile",
)


def write(directory: Path, found: Recoveries) -> None:
    """recovery.json and report.html in ``directory``."""
    runs.write_json(directory / "recovery.json", found.model_dump_json(indent=2))
    runs.write_json(directory / "report.html", render(found))


def lines(found: Recoveries) -> Iterator[str]:
    """The table for a terminal."""
    shown = Table(*HEADINGS, title=f"recovery, as clients saw it: {found.label} {found.release}")
    for row in table(found.strikes):
        shown.add_row(*map(str, row))
    console = Console(width=140, highlight=False)
    with console.capture() as captured:
        console.print(shown)
    yield from captured.get().rstrip().splitlines()
    yield (
        f"{len(found.strikes)} strikes, {found.checked:,} operations checked, "
        f"{found.acknowledged:,} transfers acknowledged: {verdict(found)}"
    )


def verdict(found: Recoveries) -> str:
    """Of all histories together."""
    checks = [
        Check.model_validate({"name": run, "verdict": said, "detail": ""})
        for run, said in found.verdicts.items()
    ]
    return verdict_of(checks)


def render(found: Recoveries) -> str:
    """The page."""
    groups: dict[str, list[float]] = {}
    for strike in found.strikes:
        groups.setdefault(f"{strike.fault} ({strike.deployment})", []).append(strike.gap_s)
    return report.page(
        "recovery.html.j2",
        found=found,
        verdict=verdict(found),
        histories=[
            (run, said, ", ".join(sorted({s.fault for s in found.strikes if s.run == run})))
            for run, said in found.verdicts.items()
        ],
        headings=HEADINGS,
        rows=table(found.strikes),
        plot=plots.dots(list(groups.items()), "s", "Longest time without an answer"),
    )
