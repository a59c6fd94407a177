"""The seconds of all workers, added up: live for the progress line, at the end for the result."""

from __future__ import annotations

from collections import Counter, defaultdict

from loadtests.run.histogram import Histogram
from loadtests.run.meter import OUTCOMES, ActionSecond, Second
from loadtests.run.result import ActionResult, Figures, Latency, Point


def latency(histogram: Histogram) -> Latency:
    """The percentiles a report shows."""
    return Latency(
        p50_ms=histogram.percentile_ms(50),
        p95_ms=histogram.percentile_ms(95),
        p99_ms=histogram.percentile_ms(99),
        p999_ms=histogram.percentile_ms(99.9),
        max_ms=histogram.max_ms,
    )


class Series:
    """Every Second of every worker, in order of arrival."""

    def __init__(self) -> None:
        self.seconds: list[Second] = []

    def add(self, second: Second) -> None:
        """Take in one worker's second."""
        self.seconds.append(second)

    def between(self, start: float, end: float) -> list[Second]:
        """The seconds that ended within (start, end], unix time."""
        return [second for second in self.seconds if start < second["at"] <= end]

    @property
    def transfers(self) -> int:
        """Transfers acknowledged so far."""
        return sum(second["transfers"] for second in self.seconds)

    def points(self) -> list[Point]:
        """One Point for each wall-clock second."""
        by_second: defaultdict[int, list[Second]] = defaultdict(list)
        for second in self.seconds:
            by_second[round(second["at"])].append(second)
        return [_point(float(at), by_second[at]) for at in sorted(by_second)]


def figures(seconds: list[Second], duration_s: float) -> Figures:
    """Sum up a window of ``duration_s``."""
    actions, requests, lags = Histogram(), Histogram(), Histogram()
    for second in seconds:
        requests.merge(second["request_buckets"])
        lags.merge(second["lag_buckets"])
        for action in second["actions"].values():
            actions.merge(action["buckets"])
    counts = {o: sum(a[o] for s in seconds for a in s["actions"].values()) for o in OUTCOMES}  # type: ignore[literal-required]
    transfers = sum(second["transfers"] for second in seconds)
    packets = sum(second["requests"] for second in seconds)
    events = sum(second["events"] for second in seconds)
    return Figures(
        duration_s=duration_s,
        actions=sum(counts.values()),
        actions_per_s=sum(counts.values()) / duration_s if duration_s else 0.0,
        transfers=transfers,
        transfers_per_s=transfers / duration_s if duration_s else 0.0,
        requests=packets,
        transfers_per_request=events / packets if packets else 0.0,
        drops=sum(second["drops"] for second in seconds),
        latency=latency(actions),
        request_latency=latency(requests),
        hub_lag=latency(lags),
        generator_cpu_percent=_busiest(seconds),
        **counts,
    )


def by_action(seconds: list[Second], duration_s: float) -> dict[str, ActionResult]:
    """Sum up a window for each kind of action."""
    grouped: defaultdict[str, list[ActionSecond]] = defaultdict(list)
    for second in seconds:
        for name, action in second["actions"].items():
            grouped[name].append(action)
    return {name: _action(grouped[name], duration_s) for name in sorted(grouped)}


def _action(parts: list[ActionSecond], duration_s: float) -> ActionResult:
    histogram, reasons = Histogram(), Counter[str]()
    for part in parts:
        histogram.merge(part["buckets"])
        reasons.update(part["reasons"])
    counts = {o: sum(part[o] for part in parts) for o in OUTCOMES}  # type: ignore[literal-required]
    return ActionResult(
        reasons=dict(reasons),
        per_s=sum(counts.values()) / duration_s if duration_s else 0.0,
        latency=latency(histogram),
        buckets=histogram.buckets,
        **counts,
    )


def _point(at: float, seconds: list[Second]) -> Point:
    histogram = Histogram()
    for second in seconds:
        for action in second["actions"].values():
            histogram.merge(action["buckets"])
    counts = {o: sum(a[o] for s in seconds for a in s["actions"].values()) for o in OUTCOMES}  # type: ignore[literal-required]
    return Point(
        at=at,
        transfers=sum(second["transfers"] for second in seconds),
        requests=sum(second["requests"] for second in seconds),
        drops=sum(second["drops"] for second in seconds),
        users=sum(second["users"] for second in seconds),
        p50_ms=histogram.percentile_ms(50),
        p99_ms=histogram.percentile_ms(99),
        lag_max_ms=max(second["lag_max_ms"] for second in seconds),
        generator_cpu_percent=max(second["cpu_percent"] for second in seconds),
        **counts,
    )


def _busiest(seconds: list[Second]) -> float:
    by_worker: defaultdict[int, list[float]] = defaultdict(list)
    for second in seconds:
        by_worker[second["worker"]].append(second["cpu_percent"])
    return max((sum(values) / len(values) for values in by_worker.values()), default=0.0)
