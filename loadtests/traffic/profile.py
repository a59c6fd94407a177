"""Arrival profiles: how traffic changes over time, as a share of its peak.

A profile is a file: described in TOML, or recorded as a CSV of counts. Whatever time it covers is
compressed, or stretched, to the duration of the run.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from datetime import datetime
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from cluster.refusal import Refusal
from loadtests.traffic import described

FOLDER = Path(__file__).parent.parent / "profiles"
RECORDED = ".csv"
COLUMNS = ["at", "count"]


class Profile(described.Described):
    """Points in time, each with the share of the peak that is due there."""

    unit: Literal["seconds", "minutes", "hours"] | None = Field(
        default=None, description="seconds, minutes or hours; without it, parts of the run"
    )
    between: Literal["line", "step"] = Field(
        default="line",
        description="line, from a point to the next, or step: a share holds until the next point",
    )
    points: list[list[float]] = Field(description="a list of points, each [time, share of peak]")
    rate: float | None = Field(
        default=None, gt=0, description="actions/s at the peak, more than 0; --rate has precedence"
    )

    @field_validator("points")
    @classmethod
    def _ascend(cls, points: list[list[float]]) -> list[list[float]]:
        if len(points) < 2 or any(len(point) != 2 for point in points):
            raise ValueError("two points or more, each [time, share of the peak]")
        if points[0][0] != 0 or any(not a[0] < b[0] for a, b in pairwise(points)):
            raise ValueError("times that begin with 0 and ascend")
        shares = [share for _, share in points]
        if not all(0 <= share <= 1 for share in shares) or max(shares) != 1:
            raise ValueError("shares from 0 to 1, the highest of them 1")
        return points

    def level(self, elapsed: float) -> float:
        """The share of the peak, 0 to 1, when this share of the run is over, 0 to 1."""
        time = elapsed * self.points[-1][0]
        after = min(bisect_right(self.points, time, key=lambda point: point[0]), len(self.points))
        (begin, share) = self.points[after - 1]
        if self.between == "step" or after == len(self.points):
            return share
        (end, goal) = self.points[after]
        return share + (goal - share) * (time - begin) / (end - begin)

    def span(self) -> str:
        """The time that it covers, in its unit; empty where it has none."""
        return f"{self.points[-1][0]:g} {self.unit}" if self.unit else ""


def read(name: str) -> Profile:
    """The profile of this name, or in this file. Raises Refusal and OSError."""
    suffixes = (described.SUFFIX, RECORDED)
    path = described.find("--arrival-profile", name, FOLDER, suffixes)
    return _recorded(path) if path.suffix == RECORDED else described.read(path, Profile)


def _recorded(path: Path) -> Profile:
    """From counts: each of what came from its ``at`` until the next; the last is as long as that
    before it. The rate at the peak is as recorded.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != COLUMNS:
        raise _mistake(path, 1, f"the header {','.join(COLUMNS)}", ",".join(header))
    times: list[float] = []
    counts: list[float] = []
    for line, row in enumerate(rows, start=2):
        at, count = _time(row[0]) if row else None, _number(row[-1]) if len(row) == 2 else None
        if at is None or count is None or count < 0:
            wanted = "seconds or an ISO 8601 time, and a count of 0 or more"
            raise _mistake(path, line, wanted, ",".join(row))
        if times and at <= times[-1]:
            raise _mistake(path, line, "a later time than in the line before", row[0])
        times.append(at)
        counts.append(count)
    if len(times) < 2 or not any(counts):
        raise _mistake(path, len(rows) + 1, "two lines or more, not all of them 0", "fewer")
    ends = [*times[1:], 2 * times[-1] - times[-2]]
    rates = [count / (end - at) for at, end, count in zip(times, ends, counts, strict=True)]
    peak = max(rates)
    points = [[at - times[0], rate / peak] for at, rate in zip(times, rates, strict=True)]
    points.append([ends[-1] - times[0], points[-1][1]])
    about = f"recorded: {len(rows)} counts"
    return Profile(about=about, unit="seconds", between="step", points=points, rate=peak)


def _time(text: str) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def _mistake(path: Path, line: int, expected: str, found: str) -> Refusal:
    what, said = f"{path} line {line}", repr(found[:40])
    return Refusal(what, expected=expected, found=said, fix="correct it there")
