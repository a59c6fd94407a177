"""What a capacity search found, for the report: rate against latency and drops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtests.report.plots import Line, figure
from loadtests.run.result import Capacity, SearchWindow


@dataclass(frozen=True)
class Row:
    """One rate: how its windows went, and the middle of what they found."""

    rate: float
    verdicts: str
    is_met: bool
    actions_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    drops: int
    transfers_per_request: float
    generator_cpu_percent: float
    others: str


def rows(found: Capacity) -> list[Row]:
    """Every rate of the search, the lowest first; those of the probe only where it has no other."""
    by_rate: dict[float, list[SearchWindow]] = {}
    for window in sorted(found.windows, key=lambda window: (window.rate, window.is_probe)):
        of_rate = by_rate.setdefault(window.rate, [])
        if not window.is_probe or not of_rate:
            of_rate.append(window)
    return [_row(rate, windows, found) for rate, windows in by_rate.items()]


def _row(rate: float, windows: list[SearchWindow], found: Capacity) -> Row:
    # What others disturbed is told, but says nothing of the cluster, where there is better.
    told = [window for window in windows if window.verdict != "void"] or windows
    counted = Counter(window.verdict for window in windows)
    probe = "probe: " if windows[0].is_probe else ""
    worst = max(windows, key=lambda window: window.others_percent)
    return Row(
        rate=rate,
        verdicts=probe + ", ".join(f"{count} {verdict}" for verdict, count in counted.items()),
        is_met=found.knee is not None and rate <= found.knee,
        actions_per_s=median(window.actions_per_s for window in told),
        p50_ms=_middle([window.p50_ms for window in told]),
        p99_ms=_middle([window.p99_ms for window in told]),
        drops=sum(window.drops for window in told),
        transfers_per_request=median(window.transfers_per_request for window in told),
        generator_cpu_percent=median(window.generator_cpu_percent for window in told),
        others=", ".join([f"{worst.others_percent:.0f} %", *worst.others]),
    )


def _middle(values: list[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


def charts(found: Capacity) -> list[dict[str, Any]]:
    """Latency against rate, with the bound; and drops, if there were any."""
    told = rows(found)
    if not told:
        return []
    bound = [(told[0].rate, found.p99_ms), (told[-1].rate, found.p99_ms)]
    lines = [
        Line("p99", [(row.rate, row.p99_ms) for row in told], 4),
        Line("p50", [(row.rate, row.p50_ms) for row in told], 1),
        Line(f"bound of p99, {found.p99_ms:g} ms", bound, 6),
    ]
    common: dict[str, Any] = {"x_unit": "/s", "x_max": told[-1].rate * 1.05}
    shown = [figure("Latency against rate", lines, unit="ms, logarithmic", log=True, **common)]
    if any(row.drops for row in told):
        dropped = [Line("dropped", [(row.rate, float(row.drops)) for row in told], 4)]
        shown.append(figure("Dropped against rate", dropped, unit="actions", **common))
    return shown
