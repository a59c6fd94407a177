"""Plots as inline SVG: no script, no font, no outside resource. Colours come from the page.

Drawn 480 units wide, so that their text is legible on a phone and not huge on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 480, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26

_DOTS_WIDTH = 720
_NOTHING = '<p class="nothing">nothing was measured</p>'

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Line:
    """One series of (x, y); None breaks the line. ``colour`` is 1 to 6 of the page's palette."""

    label: str
    points: Points
    colour: int
    filled: bool = False


@dataclass(frozen=True)
class Chart:
    """Axes and what is drawn on them. ``marks`` are vertical lines, ``shade`` an x range.

    x is seconds, unless ``x_unit`` says otherwise.
    """

    lines: Sequence[Line]
    unit: str
    log: bool = False
    marks: Sequence[tuple[float, str]] = ()
    shade: tuple[float, float] | None = None
    x_max: float | None = None
    x_unit: str = " s"
    description: str = ""


def figure(title: str, lines: Sequence[Line], **chart: Any) -> dict[str, Any]:
    """A chart as the page's template takes it, with its title and legend."""
    return {
        "title": title,
        "legend": [(line.label, line.colour) for line in lines],
        "svg": time_chart(Chart(lines=lines, description=title, **chart)),
        "note": "",
    }


def time_chart(chart: Chart) -> str:
    """Lines over time, or over another quantity."""
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [y for line in chart.lines for _, y in line.points if y is not None]
    if not xs or not ys:
        return _NOTHING
    x_top = chart.x_max or max(xs) or 1.0
    scale = _log_scale(ys) if chart.log else _linear_scale(max(ys))
    parts = [_frame(scale, chart.unit), _x_axis(x_top, chart.x_unit)]
    if chart.shade:
        left, right = _x(chart.shade[0], x_top), _x(chart.shade[1], x_top)
        parts.append(
            f'<rect class="shade" x="{left:.1f}" y="{_TOP}" width="{max(0, right - left):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"><title>warm-up, not measured</title></rect>'
        )
    for line in chart.lines:
        parts.append(_path(line, x_top, scale))
    for at, what in chart.marks:
        x = _x(at, x_top)
        parts.append(
            f'<g class="mark"><title>{escape(what)} at {at:.1f} s</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
            f'<circle cx="{x:.1f}" cy="{_TOP}" r="4"/></g>'
        )
    return _svg("".join(parts), chart.description)


def histogram(
    bars: Sequence[tuple[float, float, float]], marks: Sequence[tuple[float, str]], description: str
) -> str:
    """Bars (from ms, to ms, percent of all) on a logarithmic axis, with named marks in ms."""
    if not bars:
        return _NOTHING
    low, high = bars[0][0], bars[-1][1]
    top = max(height for *_, height in bars)
    scale, axis = _linear_scale(top), _Scale(low, high, (), log=True)

    def x_of(value: float) -> float:
        return _LEFT + axis.share(value) * (WIDTH - _LEFT - _RIGHT)

    parts = [_frame(scale, "%")]
    for left, right, height in bars:
        y = _y(height, scale)
        parts.append(
            f'<rect class="bar" x="{x_of(left):.1f}" y="{y:.1f}" '
            f'width="{max(0.5, x_of(right) - x_of(left) - 0.6):.1f}" '
            f'height="{HEIGHT - _BOTTOM - y:.1f}">'
            f"<title>{short(left)} to {short(right)} ms: {height:.1f} %</title></rect>"
        )
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        parts.append(_x_label(x_of(10.0**power), f"{short(10.0**power)} ms"))
    for row, (value, label) in enumerate(marks):
        x = x_of(min(max(value, low), high))
        anchor = "end" if x > WIDTH * 0.8 else "start"
        shift = -4 if anchor == "end" else 4
        parts.append(
            f'<g class="quantile"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" '
            f'y2="{HEIGHT - _BOTTOM}"/><text x="{x + shift:.1f}" y="{_TOP + 11 + 14 * row}" '
            f'text-anchor="{anchor}">{escape(label)} {short(value)} ms</text></g>'
        )
    return _svg("".join(parts), description)


def dots(rows: Sequence[tuple[str, Sequence[float]]], unit: str, description: str) -> str:
    """A row for each label, a dot for each of its values, on one logarithmic axis."""
    values = [value for _, row in rows for value in row]
    if not values:
        return _NOTHING
    scale = _log_scale(values)
    row_height, left = 24, 230
    bottom = _TOP + row_height * len(rows)

    def x_of(value: float) -> float:
        return left + scale.share(value) * (_DOTS_WIDTH - left - 2 * _RIGHT)

    parts = []
    for tick in scale.ticks:
        x = f"{x_of(tick):.1f}"
        parts.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">'
            f"{short(tick)} {unit}</text>"
        )
    for place, (label, row) in enumerate(rows):
        y = _TOP + row_height * (place + 0.5)
        parts.append(
            f'<text class="tick" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(label)}</text>"
        )
        parts += [
            f'<circle class="dot c1" cx="{x_of(value):.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(label)}: {value:.2f} {unit}</title></circle>"
            for value in row
        ]
    return _svg("".join(parts), description, _DOTS_WIDTH, bottom + 24)


def short(value: float) -> str:
    """A number in at most about four characters: 0.25, 4.2, 130, 12k, 3.4M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            unit = 1e3 if suffix == "k" else factor
            return f"{value / unit:.3g}{suffix}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool

    def share(self, value: float) -> float:
        """Where a value is: 0 at the low end, 1 at the high end."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        low = math.log10(self.low)
        return (math.log10(max(value, self.low)) - low) / (math.log10(self.high) - low)


def _linear_scale(top: float) -> _Scale:
    top = top if top > 0 else 1.0
    power = 10 ** math.floor(math.log10(top))
    step = next(s * power for s in (0.2, 0.25, 0.5, 1.0, 2.0, 2.5) if top / (s * power) <= 5)
    count = math.ceil(top / step - 1e-9)
    return _Scale(0.0, count * step, tuple(i * step for i in range(count + 1)), log=False)


def _log_scale(values: Sequence[float]) -> _Scale:
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    high = max(high, low + 1)
    ticks = tuple(10.0**power for power in range(low, high + 1))
    return _Scale(10.0**low, 10.0**high, ticks, log=True)


def _x(value: float, top: float) -> float:
    return _LEFT + min(max(value / top, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT)


def _y(value: float, scale: _Scale) -> float:
    return HEIGHT - _BOTTOM - min(max(scale.share(value), 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)


def _frame(scale: _Scale, unit: str) -> str:
    parts = []
    for tick in scale.ticks:
        y = _y(tick, scale)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short(tick)}</text>"
        )
    parts.append(f'<text class="tick unit" x="{_LEFT}" y="{_TOP - 2}">{escape(unit)}</text>')
    return "".join(parts)


def _x_axis(top: float, unit: str) -> str:
    scale = _linear_scale(top)
    ticks = [tick for tick in scale.ticks if tick <= top * 1.001]
    last = ticks[-1]
    labels = (
        _x_label(_x(tick, top), short(tick) + unit if tick == last else short(tick))
        for tick in ticks
    )
    return "".join(labels)


def _x_label(x: float, text: str) -> str:
    anchor = "end" if x > WIDTH - 30 else "middle"
    return (
        f'<text class="tick" x="{min(x, WIDTH - 4):.1f}" y="{HEIGHT - 8}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _path(line: Line, x_top: float, scale: _Scale) -> str:
    pieces: list[list[str]] = [[]]
    for x, y in line.points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(x, x_top):.1f},{_y(y, scale):.1f}")
    parts = []
    base = HEIGHT - _BOTTOM
    for piece in (piece for piece in pieces if piece):
        if len(piece) == 1:
            left, top = piece[0].split(",")
            parts.append(f'<circle class="dot c{line.colour}" cx="{left}" cy="{top}" r="2.5"/>')
            continue
        if line.filled:
            left, right = piece[0].split(",")[0], piece[-1].split(",")[0]
            area = f"M{left},{base} L" + " L".join(piece) + f" L{right},{base} Z"
            parts.append(f'<path class="area c{line.colour}" d="{area}"/>')
        parts.append(f'<path class="line c{line.colour}" d="M{" L".join(piece)}"/>')
    return "".join(parts)


def _svg(content: str, description: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">'
        f"{content}</svg>"
    )
