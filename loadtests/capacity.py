"""``make capacity``: the highest open-loop rate with p99 under a bound and nothing dropped.

Runs locust with shapes/_search.py, which does the search; then audits the run like any other.
"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from loadtests.load import SEARCH, Wanted, run_once, show
from loadtests.report import curve
from loadtests.report.curve import Capacity, SearchWindow, read_capacity
from loadtests.report.report import milliseconds
from loadtests.run import runs
from loadtests.run.exit_codes import EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN

P99_MS = 100.0
USERS = 2000
START_RATE = 500.0
#: A bound on the whole search; it ends by itself long before.
SEARCH_MAX_S = 1200


def conclusion(found: Capacity | None) -> tuple[str, int]:
    """The answer in words, and its exit code. Pure."""
    if found is None or not found.windows:
        return "unknown: the search was cut off before its first window", EXIT_UNKNOWN
    windows = [window for window in found.windows if not window.is_probe]
    bound = f"p99 under {found.p99_ms:g} ms, nothing dropped"
    note = f"; {found.note}" if found.note else ""
    if found.verdict == "none":
        lowest = min(window.rate for window in found.windows)
        return f"not even {lowest:,.0f} actions/s meet the bound: {bound}{note}", EXIT_MISSED
    if found.verdict == "found" and found.knee is not None:
        counted = f"{len(windows)} windows, {len(found.windows) - len(windows)} of a probe"
        return f"{found.knee:,.0f} actions/s with {bound} ({counted}){note}", EXIT_PASSED
    least = f"{found.knee:,.0f} actions/s at least" if found.knee else "no rate is proven"
    is_cut_off = found.verdict == "cut off"
    why = "the search was cut off. Fix: let it end" if is_cut_off else _disturbed(windows)
    return f"unknown, {least}: {why}{note}", EXIT_UNKNOWN


def table(found: Capacity) -> Table:
    """The curve, for a terminal: every rate that was tried."""
    shown = Table(title="capacity: rate against latency")
    for column in ("rate", "windows", "reached", "p50", "p99", "dropped", "generator", "others"):
        shown.add_column(column, justify="left" if column == "windows" else "right")
    for row in curve.rows(found):
        shown.add_row(
            f"{row.rate:,.0f}",
            row.verdicts,
            f"{row.actions_per_s:,.0f}",
            milliseconds(row.p50_ms),
            milliseconds(row.p99_ms),
            f"{row.drops:,}",
            f"{row.generator_cpu_percent:.0f} %",
            ", ".join(row.others.split(", ")[:2]),
        )
    return shown


def _disturbed(windows: list[SearchWindow]) -> str:
    voids = [window for window in windows if window.verdict == "void"]
    worst = max(voids, key=lambda window: window.others_percent)
    who = f" ({', '.join(worst.others)})" if worst.others else ""
    return (
        f"{len(voids)} of {len(windows)} windows were void, as others used up to "
        f"{worst.others_percent:.0f} % of the machine{who}. Fix: repeat it when they have ended"
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--p99-ms", default=P99_MS, help="The bound.")
@click.option("--users", default=USERS, help="Pool: actions under way at most.")
@click.option("--start-rate", default=START_RATE, help="Actions/s at which the probe begins.")
@click.option("--window-s", default=5.0, help="One window, without settling.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def main(
    p99_ms: float, users: int, start_rate: float, window_s: float, extra: tuple[str, ...]
) -> int:
    """Find the highest open-loop rate with p99 under a bound and nothing dropped.

    Whatever else is given goes to locust. Exit codes: as of `load`; 3 not even the lowest rate,
    4 unknown too where other programs disturbed too many windows.
    """
    if p99_ms <= 0 or start_rate < 1 or window_s < 1:
        raise click.UsageError(
            "--p99-ms: expected more than 0; --start-rate, --window-s: expected 1 or more"
        )
    more = ["--capacity-p99-ms", str(p99_ms), "--capacity-window-s", str(window_s)]
    more += ["--rate", str(start_rate)]
    wanted = Wanted(users, SEARCH_MAX_S, shape=SEARCH)
    outcome = run_once(wanted, [*extra, *more], runs.name_of(runs.new_tag()), "")
    if isinstance(outcome, int):
        return outcome
    show([outcome])
    found = read_capacity(outcome.path)
    if found:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(table(found))
    said, code = conclusion(found)
    print(f"capacity: {said}")
    return outcome.exit_code or code
