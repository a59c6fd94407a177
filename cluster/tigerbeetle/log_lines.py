"""What a line of a replica's log means: normal, a change, to look at, or to act upon. Pure.

The list is data, ``log_lines.toml``, each entry with the release in whose log it was seen.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from cluster.tigerbeetle import log

Kind = Literal["normal", "change", "look", "act"]
CATALOGUE = Path(__file__).with_suffix(".toml")

#: `2026-11-23 02:03:22.581Z ` before every line but a panic's.
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?Z ")
_LEVEL = re.compile(r"^(error|warning|info|debug)[(:]")
#: What a replica finds where it has not written yet.
_NOT_WRITTEN = re.compile(r"invalid_checksum: .* found address=0 checksum=0+$")
_NOT_COPIED = "a block that state sync has not copied yet"
#: The level of a line that is not in the catalogue.
_KIND_OF_LEVEL: dict[str, Kind] = {"error": "act", "warning": "look"}


@dataclass(frozen=True)
class Entry:
    """One known line."""

    match: re.Pattern[str]
    kind: Kind
    meaning: str
    seen: str


@dataclass(frozen=True)
class Reading:
    """A line understood: its level ('' when it has none), and what it means ('' when unknown)."""

    text: str
    level: str
    kind: Kind
    meaning: str


@cache
def entries() -> tuple[Entry, ...]:
    """The catalogue, in order."""
    lines = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["line"]
    return tuple(Entry(re.compile(e["match"]), e["kind"], e["meaning"], e["seen"]) for e in lines)


def read(line: str) -> Reading:
    """What one line means. An unknown error counts as ``act``, an unknown warning as ``look``."""
    text = _TIMESTAMP.sub("", line.rstrip("\n"))
    match = _LEVEL.match(text)
    level = match[1] if match else ""
    for entry in entries():
        if entry.match.search(text):
            return Reading(text, level, entry.kind, entry.meaning)
    return Reading(text, level, _KIND_OF_LEVEL.get(level, "normal"), "")


class Reader:
    """Reads one replica's log, oldest line first: what some lines mean depends on others."""

    def __init__(self) -> None:
        self._log = log.Reader()

    def read(self, line: str) -> Reading:
        """The next line. While the state is copied, a block that is not there yet is no damage."""
        is_copying = self._log.read([line]).sync.is_under_way
        reading = read(line)
        if is_copying and _NOT_WRITTEN.search(reading.text):
            return replace(reading, kind="normal", meaning=_NOT_COPIED)
        return reading


def of_last_run(lines: Sequence[str]) -> Sequence[str]:
    """From the last start on; all of them, where that has rotated away."""
    starts = [number for number, line in enumerate(lines) if log.START.search(line)]
    return lines[starts[-1] :] if starts else lines


def to_act_upon(lines: Iterable[str]) -> Iterator[Reading]:
    """The lines of one log at which a person must act; a healthy one has none."""
    return (reading for reading in map(Reader().read, lines) if reading.kind == "act")
