"""What one worker measures: lists that are appended to, summed up once a second in bulk.

Firing a locust event for each action costs as much as the action itself. So actions are appended
here, and a Second sums them up: for locust's statistics, for the master, for the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain
from struct import Struct
from time import perf_counter
from typing import Literal, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from loadtests.client.bridge import Waits
from loadtests.client.records import CREATED, EXISTS, Array
from loadtests.run.arrivals import Overdue
from loadtests.run.histogram import Histogram, bucket_of

Outcome = Literal["ok", "rejected", "unknown", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


#: Buckets of latency that share one sum of its parts: each is 9 % wide.
BUCKETS_OF_PARTS = 8
#: How many actions, and their seconds: no user free, waiting, in a packet, in the generator.
Sums = tuple[int, float, float, float, float]
Durations = npt.NDArray[np.float64]
#: One object for an action's latency and its waits: as floats they take three times as long.
_packed = Struct("4d").pack


class ActionSecond(TypedDict):
    """One action in one second: outcomes, reasons of those not ok, latency buckets, its parts."""

    ok: int
    rejected: int
    unknown: int
    error: int
    reasons: dict[str, int]
    buckets: dict[int, int]
    parts: Sums


class Second(TypedDict):
    """What one worker did since the last one. Plain data: it travels to the master."""

    worker: int
    at: float
    actions: dict[str, ActionSecond]
    parts: dict[int, Sums]
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
        self._seconds: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._transfers = self._events = 0
        self._request_seconds: list[float] = []
        self._lags: list[float] = []

    def add(
        self, action: str, outcome: str, since: float, reason: str = "", waits: Waits = (0.0, 0.0)
    ) -> None:
        """One action has ended now; ``since`` is a perf_counter instant, ``waits`` of its call.

        An ``Overdue`` instant tells that no user was free.

        An action without a reply counts with the time its user waited: leaving it out would make
        the cluster look faster than it is.
        """
        unmanned = since.free_at - since if isinstance(since, Overdue) else 0.0
        self._seconds[action, outcome].append(_packed(perf_counter() - since, unmanned, *waits))
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
        spent = {name: self._spent(name) for name in names}
        second = Second(
            worker=self.worker,
            at=at,
            actions={name: self._action(name, spent[name]) for name in names},
            parts=_parts_by_bucket(list(spent.values())),
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

    def _spent(self, name: str) -> Durations:
        """Rows: all of the time of each, and its parts as in Sums; seconds."""
        lists = (self._seconds.get((name, outcome), ()) for outcome in OUTCOMES)
        flat = np.frombuffer(b"".join(chain.from_iterable(lists)))
        rows = np.empty((5, len(flat) // 4))
        rows[:4] = flat.reshape(-1, 4).T
        np.maximum(rows[0] - rows[1:4].sum(axis=0), 0.0, out=rows[4])
        return rows

    def _action(self, name: str, spent: Durations) -> ActionSecond:
        counts = {o: len(self._seconds.get((name, o), ())) for o in OUTCOMES}
        return ActionSecond(
            ok=counts["ok"],
            rejected=counts["rejected"],
            unknown=counts["unknown"],
            error=counts["error"],
            reasons={r: n for (action, r), n in self._reasons.items() if action == name},
            buckets=_buckets(spent[0]),
            parts=_sums(spent),
        )


def _buckets(seconds: list[float] | Durations) -> dict[int, int]:
    histogram = Histogram()
    histogram.add(seconds)
    return histogram.buckets


def _sums(spent: Durations) -> Sums:
    none, waiting, packet, generator = spent[1:].sum(axis=1).tolist()
    return spent.shape[1], none, waiting, packet, generator


def _parts_by_bucket(spent: list[Durations]) -> dict[int, Sums]:
    """What latency consists of, by latency: the slow ones may be slow for another reason."""
    if not spent:
        return {}
    latency, *parts = np.concatenate(spent, axis=1)
    coarse = bucket_of(latency) // BUCKETS_OF_PARTS
    counts = np.bincount(coarse)
    none, waiting, packet, generator = (np.bincount(coarse, part).tolist() for part in parts)
    return {
        int(b): (int(counts[b]), none[b], waiting[b], packet[b], generator[b])
        for b in np.flatnonzero(counts)
    }
