"""What a check found wrong: how many there are, and the first few by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loadtests.client.columns import Lows
from loadtests.client.external import Words
from loadtests.client.records import TRANSFER, Array, join
from loadtests.run.result import Check

NAMED_MAX = 3


class Named:
    """Counts problems of one kind; names no more than the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []

    def add(self, count: int, names: Iterable[str]) -> None:
        """Note so many, of which only as many names are asked for as are told."""
        self.count += count
        for name in names if len(self.names) < NAMED_MAX else ():
            self.names.append(name)
            if len(self.names) == NAMED_MAX:
                return

    def transfers(self, lows: Lows, tag: int) -> None:
        """Note the transfers of a run by the low halves of their ids."""
        self.add(len(lows), (hex(tag << 64 | int(low)) for low in lows[:NAMED_MAX]))

    def accounts(self, accounts: Array) -> None:
        """Note these accounts."""
        self.add(len(accounts), (hex(join(account["id"])) for account in accounts[:NAMED_MAX]))

    def text(self, problem: str) -> str:
        """The problem with its count and names; empty when there is none."""
        more = ", …" * (self.count > len(self.names))
        return f"{self.count:,} {problem} {', '.join(self.names)}{more}" if self.count else ""

    def told(self, problem: str) -> str:
        """The same, where each name is a text of its own."""
        return f"{self.count:,} {problem}: {'; '.join(self.names)}" if self.count else ""


def judged(name: str, problems: Sequence[str], good: str) -> Check:
    """One check: failed with all problems that are not empty, else passed."""
    found = [problem for problem in problems if problem]
    return Check(
        name=name, verdict="failed" if found else "passed", detail="; ".join(found) or good
    )


def difference(expected: Words, found: Words) -> str:
    """How a stored transfer differs from the one that was sent; both as words."""
    sent, held = (np.ascontiguousarray(each).view(TRANSFER)[0] for each in (expected, found))
    names = [n for n in TRANSFER.names or () if (sent[n] != held[n]).any()]
    what = ", ".join(f"{n} sent {_text(sent[n])}, stored {_text(held[n])}" for n in names)
    return f"transfer {hex(join(sent['id']))}: {what}"


def _text(value: Any) -> str:
    return str(join(value) if np.ndim(value) else int(value))
