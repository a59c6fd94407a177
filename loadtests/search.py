"""The search for the knee: the highest rate that still meets a bound. Pure: it is given figures.

A short probe doubles the rate until one brief window fails; the search begins at the last that did
not. One window proves little: a compaction or another program can spoil it. Two windows of three
decide whether a rate passes. One that failed while other programs used the machine is void and is
repeated; where too many are, nothing is known, and the search says so instead of a figure.
The first rate that failed is tried once more at the end: one disturbance may have failed them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtests.report.curve import WindowVerdict
from loadtests.run.result import Figures

#: From a rate that failed back to one that passed, it takes two halvings to know to a tenth.
GROWTH = 1.45
PROBE_GROWTH = 2.0
PRECISION = 0.10
#: So many void windows at one rate end the search; in all, if they are the greater part.
VOIDS_MAX = 6
RATES_MAX = 30
#: A window counts if it reached this share of its rate: Poisson arrivals vary.
REACHED = 0.93
#: Above this share of the machine used by others, or stolen from it, a failed window is void.
FOREIGN_PERCENT = 20.0


def judge(found: Figures, *, rate: float, p99_ms: float, others_percent: float) -> WindowVerdict:
    """A good window counts on a busy machine too; a bad one may not be the cluster's fault."""
    p99 = found.latency.p99_ms
    is_good = (
        p99 is not None
        and p99 <= p99_ms
        and not found.drops
        and not found.unknown + found.error
        and found.actions_per_s >= REACHED * rate
    )
    return "good" if is_good else "void" if others_percent > FOREIGN_PERCENT else "bad"


@dataclass
class Search:
    """Propose ``rate``; ``feed`` it windows; until ``done``. ``knee`` is the answer so far."""

    rate: float
    rate_max: float = float("inf")
    knee: float | None = None
    done: bool = False
    #: The windows of a probe are brief, and decide nothing but where the search begins.
    is_probing: bool = True
    #: Too many windows were void: ``knee`` was carried, and what more might be is not known.
    is_disturbed: bool = False
    history: list[tuple[float, WindowVerdict]] = field(default_factory=list)
    _passed: float | None = None
    _ceiling: float | None = None
    _good: int = 0
    _bad: int = 0
    _voids: int = 0
    _rates: int = 1
    _retried: bool = False

    def feed(self, window: WindowVerdict) -> None:
        """The verdict on one window at ``rate``. Raises ValueError when the search is over."""
        if self.done:
            raise ValueError("the search is over")
        if self.is_probing:
            self._probe(window)
            return
        self.history.append((self.rate, window))
        if window == "void":
            self._voids += 1
            voids = sum(verdict == "void" for _, verdict in self.history)
            is_greater_part = voids >= VOIDS_MAX and 2 * voids > len(self.history)
            self.done = self.is_disturbed = self._voids >= VOIDS_MAX or is_greater_part
            return
        if window == "good":
            self._good += 1
        else:
            self._bad += 1
        if self._good == 2:
            self.knee = self.rate
            if self._ceiling is not None and self._ceiling <= self.rate:
                self._ceiling = None  # what failed has passed now: look further up again
            self._next()
        elif self._bad == 2:
            self._ceiling = self.rate
            self._next()

    def _probe(self, window: WindowVerdict) -> None:
        if window == "good" and self.rate < self.rate_max:
            self._passed = self.rate
            self.rate = min(self.rate * PROBE_GROWTH, self.rate_max)
            return
        self.is_probing = False
        if window != "good" and self._passed is not None:
            self.rate = self._passed

    def _next(self) -> None:
        self._good = self._bad = self._voids = 0
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
