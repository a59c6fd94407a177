"""The search for the knee: the highest rate that still meets a bound. Pure: it is given verdicts.

One window proves little: a compaction or another program can spoil it. Two windows of three decide
whether a rate passes. A window in which other programs used the machine is void and is repeated.
The first rate that failed is tried once more at the end: one disturbance may have failed them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Window = Literal["good", "bad", "void"]

GROWTH = 1.5
PRECISION = 0.10
VOIDS_MAX = 5
RATES_MAX = 30


@dataclass
class Search:
    """Propose ``rate``; ``feed`` it windows; until ``done``. ``knee`` is the answer so far."""

    rate: float
    rate_max: float = float("inf")
    knee: float | None = None
    done: bool = False
    history: list[tuple[float, Window]] = field(default_factory=list)
    _ceiling: float | None = None
    _good: int = 0
    _bad: int = 0
    _voids: int = 0
    _rates: int = 1
    _retried: bool = False

    def feed(self, window: Window) -> None:
        """The verdict on one window at ``rate``."""
        if self.done:
            raise ValueError("the search is over")
        self.history.append((self.rate, window))
        if window == "void" and self._voids < VOIDS_MAX:
            self._voids += 1
            return
        if window == "good":
            self._good += 1
        else:
            self._bad += 1  # a machine that is never quiet gives no good news
        if self._good == 2:
            self.knee = self.rate
            if self._ceiling is not None and self._ceiling <= self.rate:
                self._ceiling = None  # what failed has passed now: look further up again
            self._next()
        elif self._bad == 2:
            self._ceiling = self.rate
            self._next()

    def _next(self) -> None:
        self._good = self._bad = 0
        self._rates += 1
        if self._rates > RATES_MAX or (self.knee is not None and self.knee >= self.rate_max):
            self.done = True
        elif self._ceiling is None:
            self.rate = min(self.rate * GROWTH, self.rate_max)
        elif self.knee is None:
            self.rate = self._ceiling / GROWTH
            self.done = self.rate < 1
        elif self._ceiling - self.knee > PRECISION * self.knee:
            self.rate = (self._ceiling * self.knee) ** 0.5
        elif not self._retried:
            self._retried = True
            self.rate = self._ceiling
        else:
            self.done = True
