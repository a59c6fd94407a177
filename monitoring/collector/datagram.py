"""DogStatsD datagrams as TigerBeetle sends them, parsed. Pure, and never raises for any bytes.

One line is ``tb.<name>:<value>|<g or c>|#cluster:<32 hex>,replica:<index>[,<tag>:<value>]``
(seen in 0.17.9). It refuses the same lines as ``statsd_exporter``, for the same reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["g", "c"]
Reason = Literal["malformed_line", "malformed_value", "malformed_tags", "unsupported_type"]


class Sample(NamedTuple):
    """One value. ``is_relative`` gauges add to the last value: StatsD's meaning of a sign."""

    name: str
    value: float
    kind: Kind
    tags: tuple[tuple[str, str], ...]
    is_relative: bool = False


def parse(datagram: bytes) -> Iterator[Sample | Reason]:
    """Each line's sample, or the reason why it has none."""
    for line in datagram.split(b"\n"):
        if line:
            yield parse_line(line)


def parse_line(line: bytes) -> Sample | Reason:
    """One line without its line feed."""
    try:
        name, colon, rest = line.decode().partition(":")
    except UnicodeDecodeError:
        return "malformed_line"
    parts = rest.split("|")
    if not name or not colon or len(parts) < 2:
        return "malformed_line"
    if parts[1] not in ("g", "c"):
        return "unsupported_type"
    value = _number(parts[0])
    if value is None or (parts[1] == "c" and value < 0):
        return "malformed_value"
    tags: tuple[tuple[str, str], ...] = ()
    for part in parts[2:]:
        if not part.startswith("#"):
            return "malformed_line"  # no sampling rates: TigerBeetle sends every value
        pairs = _tags(part[1:])
        if pairs is None:
            return "malformed_tags"
        tags += pairs
    kind: Kind = "g" if parts[1] == "g" else "c"
    return Sample(name, value, kind, tags, kind == "g" and parts[0][0] in "+-")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tags(text: str) -> tuple[tuple[str, str], ...] | None:
    pairs = []
    for tag in text.split(","):
        key, colon, value = tag.partition(":")
        if not key or not colon or not value:
            return None
        pairs.append((key, value))
    return tuple(pairs)
