"""What one worker measures: lists that are appended to, summed up once a second in bulk.

Firing a locust event for each action costs as much as the action itself. So actions are appended
here, and a Second sums them up: for locust's statistics, for the master, for the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain
from time import perf_counter
from typing import Literal, TypedDict, get_args

import numpy as np

from loadtests.client.records import CREATED, EXISTS, Array
from loadtests.run.histogram import Histogram

Outcome = Literal["ok", "rejected", "unknown", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class ActionSecond(TypedDict):
    """One action in one second: outcomes, reasons of those not ok, latency buckets."""

    ok: int
    rejected: int
    unknown: int
    error: int
    reasons: dict[str, int]
    buckets: dict[int, int]


class Second(TypedDict):
    """What one worker did since the last one. Plain data: it travels to the master."""

    worker: int
    at: float
    actions: dict[str, ActionSecond]
    transfers: int
    events: int
    requests: int
    request_buckets: dict[int, int]
    drops: int
    lag_max_ms: float
    lag_buckets: dict[int, int]
    cpu_percent: float
    network_percent: float
    users: int
    tail: bool


class Here(TypedDict):
    """Where a worker is, as it tells the master once; None is what nobody has asked."""

    worker: int
    host: str
    clock_offset_ms: float | None
    rtt_ms: float | None


class Meter:
    """Collects one worker's measurements. Not thread-safe: greenlets only."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self._clear()

    def _clear(self) -> None:
        self.drops = 0
        self._seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._transfers = self._events = 0
        self._request_seconds: list[float] = []
        self._lags: list[float] = []

    def add(self, action: str, outcome: str, since: float, reason: str = "") -> None:
        """One action has ended now; ``since`` is a perf_counter instant.

        An action without a reply counts with the time its user waited: leaving it out would make
        the cluster look faster than it is.
        """
        self._seconds[action, outcome].append(perf_counter() - since)
        if reason:
            self._reasons[action, reason] += 1

    def add_request(self, events: int, results: Array | None, seconds: float) -> None:
        """One packet of transfers has been answered (None: with an error)."""
        self._events += events
        self._request_seconds.append(seconds)
        if results is not None:
            created = (results["status"] == CREATED) | (results["status"] == EXISTS)
            self._transfers += int(np.count_nonzero(created))

    def add_lag(self, seconds: float) -> None:
        """A greenlet was woken by the hub this much later than it asked for."""
        self._lags.append(seconds)

    def second(
        self,
        at: float,
        *,
        cpu_percent: float,
        users: int,
        network_percent: float = 0.0,
        tail: bool = False,
    ) -> Second:
        """Everything since the last call, and start anew. ``at`` is wall-clock time.

        ``tail`` marks what came after the users were told to stop: not part of any figure.
        """
        names = sorted({action for action, _ in self._seconds})
        second = Second(
            worker=self.worker,
            at=at,
            actions={name: self._action(name) for name in names},
            transfers=self._transfers,
            events=self._events,
            requests=len(self._request_seconds),
            request_buckets=_buckets(self._request_seconds),
            drops=self.drops,
            lag_max_ms=max(self._lags, default=0.0) * 1000,
            lag_buckets=_buckets(self._lags),
            cpu_percent=cpu_percent,
            network_percent=network_percent,
            users=users,
            tail=tail,
        )
        self._clear()
        return second

    def _action(self, name: str) -> ActionSecond:
        taken = {outcome: self._seconds.get((name, outcome), []) for outcome in OUTCOMES}
        return ActionSecond(
            ok=len(taken["ok"]),
            rejected=len(taken["rejected"]),
            unknown=len(taken["unknown"]),
            error=len(taken["error"]),
            reasons={r: n for (action, r), n in self._reasons.items() if action == name},
            buckets=_buckets(list(chain.from_iterable(taken.values()))),
        )


def _buckets(seconds: list[float]) -> dict[int, int]:
    histogram = Histogram()
    histogram.add(seconds)
    return histogram.buckets
