"""How long clients waited around each fault: the longest gap between two answers. Pure.

Instants are ``time.monotonic_ns`` of the machine that both faults and workload run on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from pydantic import Field

from loadtests.run.history import CREATED, History
from loadtests.run.result import Model


class Strike(Model):
    """One fault, when it was injected, and how long clients waited. Durations in seconds."""

    fault: str
    victims: list[int]
    deployment: str
    run: str = Field(default="", description="the directory of the history")
    broken: int = Field(description="monotonic ns: from here on it was broken")
    healing: int = Field(description="monotonic ns: from here on it was repaired")
    gated: int = Field(description="monotonic ns: all replicas normal again, a canary committed")
    gap_s: float = Field(default=0.0, description="the longest time without any answer")
    answered: int = Field(default=0, description="operations answered while broken")
    acknowledged: int = Field(default=0, description="transfers acknowledged while broken")
    unknown: int = Field(default=0, description="operations without an answer in the whole run")

    @property
    def gate_s(self) -> float:
        """From the repair until all replicas were normal again."""
        return (self.gated - self.healing) / 1e9


class Recoveries(Model):
    """recovery.json: every strike of a session."""

    label: str = Field(description="the engine as every report must name it")
    release: str
    started: float
    strikes: list[Strike]
    verdicts: dict[str, str] = Field(description="run -> verdict of the checker")
    checked: int = Field(description="operations that the checker has replayed")
    acknowledged: int = Field(
        description="transfers acknowledged; the verdicts say whether all were found"
    )


def measure(strike: Strike, history: History) -> Strike:
    """The strike with its figures, from the history that was recorded meanwhile.

    The gap is the longest one that touches the time from the fault to the gate; the answer before
    and the answer after it count, so a gap that outlasts the gate is measured whole.
    """
    answers = sorted(op.completed for op in history.operations if op.completed is not None)
    first = max(0, bisect_left(answers, strike.broken) - 1)
    last = bisect_left(answers, strike.gated) + 1
    touched = answers[first:last]
    gaps = [after - before for before, after in pairwise(touched)]
    during = [
        op
        for op in history.operations
        if op.completed is not None and strike.broken <= op.completed < strike.healing
    ]
    return strike.model_copy(
        update={
            "gap_s": round(max(gaps, default=0) / 1e9, 3),
            "answered": len(during),
            "acknowledged": sum(op.statuses.count(CREATED) for op in during),
            "unknown": sum(op.outcome == "unknown" for op in history.operations),
        }
    )


def table(strikes: Sequence[Strike]) -> list[tuple[str, str, int, str, str, str]]:
    """A row for each deployment and fault: how often, gap median and longest, gate, answered."""
    groups: dict[tuple[str, str], list[Strike]] = {}
    for strike in strikes:
        groups.setdefault((strike.deployment, strike.fault), []).append(strike)
    return [
        (
            deployment,
            fault,
            len(group),
            f"{median(s.gap_s for s in group):.2f} / {max(s.gap_s for s in group):.2f} s",
            f"{median(s.gate_s for s in group):.1f} s",
            f"{sum(s.acknowledged for s in group):,}",
        )
        for (deployment, fault), group in groups.items()
    ]
