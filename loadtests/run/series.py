"""The seconds of all workers, added up: live for the progress line, at the end for the result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import ceil
from typing import Literal

from loadtests.run.histogram import Histogram
from loadtests.run.meter import OUTCOMES, ActionSecond, Here, Second, Sums
from loadtests.run.result import (
    ActionResult,
    Composition,
    Figures,
    Latency,
    Parts,
    Point,
    WorkerResult,
)

_Count = Literal["transfers", "events", "requests", "drops", "users"]


def latency(histogram: Histogram) -> Latency:
    """The percentiles a report shows."""
    return Latency(
        p50_ms=histogram.percentile_ms(50),
        p95_ms=histogram.percentile_ms(95),
        p99_ms=histogram.percentile_ms(99),
        p999_ms=histogram.percentile_ms(99.9),
        max_ms=histogram.percentile_ms(100),
    )


class Series:
    """Every Second of every worker, in order of arrival."""

    def __init__(self) -> None:
        self.seconds: list[Second] = []

    def add(self, second: Second) -> None:
        """Take in one worker's second."""
        self.seconds.append(second)

    @property
    def transfers(self) -> int:
        """Transfers acknowledged so far."""
        return _sum(self.seconds, "transfers")

    def points(self) -> list[Point]:
        """One Point for each wall-clock second."""
        by_second: defaultdict[int, list[Second]] = defaultdict(list)
        for second in self.seconds:
            by_second[round(second["at"])].append(second)
        return [_point(float(at), by_second[at]) for at in sorted(by_second)]

    def latest(self) -> Point | None:
        """The last of ``points``, without the others: who asks every second may ask for hours."""
        at = max((round(second["at"]) for second in self.seconds), default=0)
        newest = [second for second in self.seconds if round(second["at"]) == at]
        return _point(float(at), newest) if newest else None


def figures(seconds: list[Second], duration_s: float) -> Figures:
    """Sum up a window of ``duration_s``."""
    actions = _actions(seconds)
    counts = _outcomes(actions)
    transfers, requests = _sum(seconds, "transfers"), _sum(seconds, "requests")
    return Figures(
        duration_s=duration_s,
        actions=sum(counts.values()),
        actions_per_s=sum(counts.values()) / duration_s if duration_s else 0.0,
        transfers=transfers,
        transfers_per_s=transfers / duration_s if duration_s else 0.0,
        requests=requests,
        transfers_per_request=_sum(seconds, "events") / requests if requests else 0.0,
        drops=_sum(seconds, "drops"),
        latency=latency(Histogram(*(action["buckets"] for action in actions))),
        composition=composition(part for second in seconds for part in second["parts"].items()),
        request_latency=latency(Histogram(*(second["request_buckets"] for second in seconds))),
        hub_lag=latency(Histogram(*(second["lag_buckets"] for second in seconds))),
        generator_cpu_percent=_busiest(seconds, "cpu_percent"),
        network_percent=_busiest(seconds, "network_percent"),
        **counts,
    )


def composition(by_latency: Iterable[tuple[int, Sums]]) -> Composition | None:
    """What latency consists of, from sums by (coarse) bucket of latency."""
    grouped: defaultdict[int, list[Sums]] = defaultdict(list)
    for bucket, sums in by_latency:
        grouped[bucket].append(sums)
    counts = {bucket: sum(count for count, *_ in grouped[bucket]) for bucket in sorted(grouped)}
    total = sum(counts.values())
    seen, median, slowest = 0, list[Sums](), list[Sums]()
    for bucket, count in counts.items():
        if seen < ceil(total / 2) <= seen + count:
            median = grouped[bucket]
        seen += count
        if seen > total - max(1, total // 100):
            slowest += grouped[bucket]
    whole = _parts(sums for group in grouped.values() for sums in group)
    middle, last = _parts(median), _parts(slowest)
    return (
        Composition(all=whole, median=middle, slowest=last) if whole and middle and last else None
    )


def _parts(sums: Iterable[Sums]) -> Parts | None:
    """The means; None of nothing."""
    rows = list(sums)
    actions = sum(count for count, *_ in rows)
    if not actions:
        return None
    ms = [1000 * sum(row[part] for row in rows) / actions for part in range(1, 5)]
    return Parts(
        actions=actions, no_user_ms=ms[0], waiting_ms=ms[1], packet_ms=ms[2], generator_ms=ms[3]
    )


def by_action(seconds: list[Second], duration_s: float) -> dict[str, ActionResult]:
    """Sum up a window for each kind of action."""
    grouped: defaultdict[str, list[ActionSecond]] = defaultdict(list)
    for second in seconds:
        for name, action in second["actions"].items():
            grouped[name].append(action)
    return {name: _action(grouped[name], duration_s) for name in sorted(grouped)}


def by_worker(
    seconds: list[Second], duration_s: float, where: Mapping[int, Here], missing: Collection[int]
) -> list[WorkerResult]:
    """Sum up a window for each worker; ``missing`` have not handed in their summary."""
    grouped: defaultdict[int, list[Second]] = defaultdict(list)
    for second in seconds:
        grouped[second["worker"]].append(second)
    return [
        _worker(worker, grouped[worker], duration_s, where.get(worker), worker not in missing)
        for worker in sorted({*grouped, *where, *missing})
    ]


def _worker(
    worker: int, seconds: list[Second], duration_s: float, here: Here | None, is_complete: bool
) -> WorkerResult:
    summed = figures(seconds, duration_s)
    return WorkerResult(
        worker=worker,
        host=here["host"] if here else "not known",
        actions_per_s=summed.actions_per_s,
        transfers_per_s=summed.transfers_per_s,
        latency=summed.latency,
        hub_lag=summed.hub_lag,
        cpu_percent=summed.generator_cpu_percent,
        clock_offset_ms=here["clock_offset_ms"] if here else None,
        rtt_ms=here["rtt_ms"] if here else None,
        complete=is_complete,
    )


def _action(parts: list[ActionSecond], duration_s: float) -> ActionResult:
    histogram = Histogram(*(part["buckets"] for part in parts))
    counts = _outcomes(parts)
    return ActionResult(
        reasons=dict(sum((Counter(part["reasons"]) for part in parts), Counter[str]())),
        per_s=sum(counts.values()) / duration_s if duration_s else 0.0,
        latency=latency(histogram),
        buckets=histogram.buckets,
        parts=_parts(part["parts"] for part in parts),
        **counts,
    )


def _point(at: float, seconds: list[Second]) -> Point:
    actions = _actions(seconds)
    histogram = Histogram(*(action["buckets"] for action in actions))
    return Point(
        at=at,
        transfers=_sum(seconds, "transfers"),
        requests=_sum(seconds, "requests"),
        drops=_sum(seconds, "drops"),
        users=_sum(seconds, "users"),
        p50_ms=histogram.percentile_ms(50),
        p99_ms=histogram.percentile_ms(99),
        lag_max_ms=max(second["lag_max_ms"] for second in seconds),
        generator_cpu_percent=max(second["cpu_percent"] for second in seconds),
        **_outcomes(actions),
    )


def _actions(seconds: list[Second]) -> list[ActionSecond]:
    return [action for second in seconds for action in second["actions"].values()]


def _outcomes(actions: list[ActionSecond]) -> dict[str, int]:
    return {outcome: sum(action[outcome] for action in actions) for outcome in OUTCOMES}


def _sum(seconds: list[Second], count: _Count) -> int:
    return sum(second[count] for second in seconds)


def _busiest(seconds: list[Second], of: Literal["cpu_percent", "network_percent"]) -> float:
    """The mean of the worker that has the highest."""
    by_worker: defaultdict[int, list[float]] = defaultdict(list)
    for second in seconds:
        by_worker[second["worker"]].append(second[of])
    return max((sum(values) / len(values) for values in by_worker.values()), default=0.0)
