"""The newest value of each series. Pure: time is given, nothing is read or written elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily

from monitoring.collector import datagram, naming
from monitoring.collector.datagram import Sample
from monitoring.collector.naming import Labels

#: 6 replicas of 1863 gauges and timings (`tigerbeetle inspect metrics`), five series a timing, are
#: less than half of this: only datagrams that are not TigerBeetle's reach it.
SERIES_MAX = 100_000


@dataclass
class Value:
    """One series' value and when it goes stale (monotonic seconds; infinity for never)."""

    value: float
    stale_at: float


_metric_of_name = lru_cache(maxsize=2 * SERIES_MAX)(naming.metric_of)


def metric_of(sample: Sample) -> naming.Metric | None:
    """``naming.metric_of``, remembered per name and tags: the same ones come every 10 s."""
    return _metric_of_name(sample._replace(value=0.0, is_relative=False))


@dataclass
class Series:
    """All series, by metric name and labels; and how much was received and refused."""

    series_max: int = SERIES_MAX
    datagrams: int = 0
    samples: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    _values: dict[str, dict[Labels, Value]] = field(default_factory=dict)
    _count: int = 0

    def receive(self, data: bytes, now_s: float) -> None:
        """Record every line of a datagram, and count the lines that are not understood."""
        self.datagrams += 1
        for parsed in datagram.parse(data):
            if isinstance(parsed, str):
                self.rejected[parsed] += 1
            else:
                self.record(parsed, now_s)

    def record(self, sample: Sample, now_s: float) -> None:
        """Set a gauge, or add to a counter."""
        metric = metric_of(sample)
        if metric is None:
            self.rejected["unknown_metric"] += 1
            return
        values = self._values.setdefault(metric.name, {})
        known = values.get(metric.labels)
        if known is None:
            if self._count >= self.series_max:
                self.rejected["too_many_series"] += 1
                return
            known = values[metric.labels] = Value(0.0, 0.0)
            self._count += 1
        adds = sample.kind == "c" or sample.is_relative
        known.value = known.value + sample.value if adds else sample.value
        known.stale_at = now_s + metric.ttl_s if metric.ttl_s else float("inf")
        self.samples += 1

    def forget_stale(self, now_s: float) -> None:
        """Drop the gauges that no replica has sent lately."""
        for values in self._values.values():
            for labels in [key for key, value in values.items() if value.stale_at <= now_s]:
                del values[labels]
                self._count -= 1

    def __len__(self) -> int:
        return self._count

    def families(self) -> Iterator[Metric]:
        """Every series, for prometheus-client: gauges, and a summary per timing."""
        for name, values in self._values.items():
            base, _, stat = name.rpartition("_")
            if stat == "count" and base.endswith("_us"):
                continue  # goes out with its sum
            if stat == "sum" and base.endswith("_us"):
                yield self._summary(base)
            elif values:
                gauge = GaugeMetricFamily(name, f"TigerBeetle: {name.removeprefix('tb_')}")
                for labels, value in values.items():
                    gauge.add_sample(name, dict(labels), value.value)
                yield gauge

    def _summary(self, base: str) -> Metric:
        text = f"TigerBeetle: {base.removeprefix('tb_')}, in microseconds"
        summary = SummaryMetricFamily(base, text)
        for stat in ("sum", "count"):
            for labels, value in self._values.get(f"{base}_{stat}", {}).items():
                summary.add_sample(f"{base}_{stat}", dict(labels), value.value)
        return summary
