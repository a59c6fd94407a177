"""What a capacity search found, capacity.json, and its curve: rate against latency and drops."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import Field

from loadtests.report.plots import Line, figure
from loadtests.run.result import SCHEMA_VERSION, Model, reading

CAPACITY = "capacity.json"
WindowVerdict = Literal["good", "bad", "void"]


class SearchWindow(Model):
    """One window of a capacity search, at one rate."""

    rate: float = Field(description="intended arrivals/s")
    is_probe: bool = Field(description="a brief one, to find where the search begins")
    verdict: WindowVerdict = Field(description="void: it failed, while others used the machine")
    actions_per_s: float = Field(description="reached")
    p50_ms: float | None
    p99_ms: float | None
    drops: int
    unknown: int = Field(description="failed ones included")
    transfers_per_request: float
    generator_cpu_percent: float = Field(description="of one core, of the busiest process")
    others_percent: float = Field(description="of this machine, used by others or stolen from it")
    others: list[str] = Field(description="who they were, and what each used; the most first")


class Capacity(Model):
    """capacity.json: a search, written anew after each of its windows."""

    schema_version: int = SCHEMA_VERSION
    p99_ms: float = Field(description="the bound")
    knee: float | None = Field(
        default=None,
        description="the highest rate that met it; a search without an end: at least that",
    )
    verdict: Literal["found", "none", "disturbed", "cut off"] = Field(
        default="cut off",
        description="none: not even the lowest rate; disturbed: too many void windows",
    )
    note: str = ""
    windows: list[SearchWindow] = Field(default_factory=list)

    @property
    def is_known(self) -> bool:
        """Whether there is an answer; else ``knee`` is what was carried at least."""
        return self.verdict in ("found", "none")


def read_capacity(run: Path) -> Capacity | None:
    """The search in a run's directory; None for any other run. Raises Refusal.

    None too for one of before its windows were kept.
    """
    path = run / CAPACITY
    if not path.is_file():
        return None
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Capacity.model_validate(content) if "windows" in content else None


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
