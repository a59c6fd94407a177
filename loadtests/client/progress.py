"""How far a long work is: its rate, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable


def _print(line: str) -> None:
    print(line, flush=True)


class Progress:
    """A line every two seconds; a work that is over before says nothing."""

    def __init__(
        self,
        what: str,
        of: int | None = None,
        say: Callable[[str], None] = _print,
        *,
        every_s: float = 2.0,
    ) -> None:
        """``of`` is how many there will be, where that is known."""
        self._what, self._of, self._say, self._every_s = what, of, say, every_s
        self._begun = self._shown = time.monotonic()

    def show(self, count: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._shown >= self._every_s:
            self._shown = now
            self._say(told(self._what, count, self._of, now - self._begun))


def told(what: str, count: int, of: int | None, seconds: float) -> str:
    """The line. Pure."""
    rate = count / max(seconds, 1e-9)
    line = f"{what}: {count:,}"
    if of is not None:
        line += f" of {of:,}"
    line += f", {rate:,.0f} a second"
    if of is not None and count:
        line += f", {max(0, of - count) / rate:,.0f} s left"
    return line
