"""The Prometheus metric of each StatsD line. ``files/monitoring/statsd_mapping.yml`` is the same
table for ``statsd_exporter``; a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from monitoring.collector.datagram import Kind, Sample

#: TigerBeetle emits every 10 s (0.17.9) and does not send what did not happen. After three missed
#: emissions, and some slack, a gauge is stale. Counters never are.
GAUGE_TTL_S = 35.0
#: A planned stop that nobody ends counts as a failure after this time: alerts fire again.
PLANNED_TTL_S = 3600.0


@dataclass(frozen=True)
class Rule:
    """Lines whose name matches ``pattern`` in full are the metric ``name`` (RE2-compatible)."""

    pattern: str
    name: str
    kind: Kind
    ttl_s: float  # 0: never stale

    def metric(self, name: str) -> str | None:
        """The metric's name, or None when the rule is for others."""
        match = re.match(self.pattern, name, re.ASCII)
        return match and re.sub(r"\$\{(\d)\}", lambda group: match[int(group[1])], self.name)


#: The first rule that matches wins; a line that matches none is dropped.
RULES = (
    Rule(r"^tb\.planned_stop$", "tb_planned_stop", "g", PLANNED_TTL_S),
    Rule(r"^tb\.([a-z0-9_]+)_us\.(sum|count)$", "tb_${1}_us_${2}", "c", 0),
    Rule(r"^tb\.([a-z0-9_]+)_us\.(min|max|avg)$", "tb_${1}_us_${2}", "g", GAUGE_TTL_S),
    Rule(r"^tb\.([a-z0-9_]+)$", "tb_${1}", "g", GAUGE_TTL_S),
)

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metric:
    """The metric that a sample is recorded as."""

    name: str
    labels: Labels  # sorted by name
    ttl_s: float


def metric_of(sample: Sample) -> Metric | None:
    """The metric of a sample; None if it is not one of TigerBeetle's."""
    for rule in RULES:
        name = rule.metric(sample.name)
        if name:
            labels = dict(sample.tags)
            is_ours = rule.kind == sample.kind and {"cluster", "replica"} <= labels.keys()
            if not is_ours or not all(_LABEL.fullmatch(label) for label in labels):
                return None
            return Metric(name, tuple(sorted(labels.items())), rule.ttl_s)
    return None
