"""A shell script that runs on a server and prints lines of a key and its values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def command(script: Path, *arguments: str) -> str:
    """The shell line that carries the script to a server and runs it there."""
    line = " ".join(["sh -s --", *arguments])
    return f"{line} <<'END_OF_SCRIPT'\n{script.read_text()}\nEND_OF_SCRIPT"


class Printed:
    """What it printed: key → the values of each of its lines, in order."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._said: dict[str, list[list[str]]] = {}
        for line in filter(str.strip, lines):
            key, *values = line.split()
            self._said.setdefault(key, []).append(values)

    def one(self, key: str) -> str:
        """The values of the key's first line as one text, empty where it is missing."""
        return " ".join(self._said.get(key, [[]])[0])

    def each(self, key: str) -> list[list[str]]:
        """The values of each of the key's lines."""
        return self._said.get(key, [])
