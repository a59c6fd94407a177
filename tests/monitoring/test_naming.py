"""Our collector and statsd_exporter give the same names and labels: one table, told twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring import stack
from monitoring.collector import datagram, naming
from monitoring.collector.datagram import Sample
from tests.monitoring import documents

MAPPING = documents.read(stack.FILES / "statsd_mapping.yml")["mappings"]
LINES = (Path(__file__).parent / "fixtures" / "datagrams.txt").read_text().splitlines()


def as_statsd_exporter_does(line: str) -> tuple[str, dict[str, str]] | None:
    """Name and labels by its documented rules: the first regular expression that matches decides,
    ``drop`` drops, ``${n}`` are its groups, DogStatsD tags become labels.
    """
    name, rest = line.split(":", 1)
    for mapping in MAPPING:
        match = re.search(mapping["match"], name)
        if match is None:
            continue
        if mapping.get("action") == "drop":
            return None
        tags = rest.split("|#")[1].split(",")
        named = match.expand(re.sub(r"\$\{(\d)\}", r"\\\1", mapping["name"]))
        return re.sub(r"[^a-zA-Z0-9_]", "_", named), dict(tag.split(":") for tag in tags)
    raise AssertionError("the last rule matches everything")


def as_the_collector_does(line: str) -> tuple[str, dict[str, str]] | None:
    sample = datagram.parse_line(line.encode())
    assert isinstance(sample, Sample)
    metric = naming.metric_of(sample)
    return (metric.name, dict(metric.labels)) if metric else None


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split(":")[0])
def test_a_recorded_line_has_the_same_name_and_labels(line: str) -> None:
    ours = as_the_collector_does(line)
    assert ours is not None
    assert ours == as_statsd_exporter_does(line)


def test_both_drop_what_is_not_tigerbeetle_s() -> None:
    line = "app.requests:1|g|#cluster:c,replica:0"
    assert as_the_collector_does(line) is None
    assert as_statsd_exporter_does(line) is None


def test_both_keep_and_forget_alike() -> None:
    def seconds(ttl: str) -> float:
        return float(ttl[:-1]) * {"s": 1, "h": 3600}[ttl[-1]]

    told = [(m["match"], m["name"], seconds(m.get("ttl", "0s"))) for m in MAPPING[:-1]]
    assert told == [(rule.pattern, rule.name, rule.ttl_s) for rule in naming.RULES]
    assert MAPPING[-1]["action"] == "drop"
    assert {m["match_type"] for m in MAPPING} == {"regex"}  # globs would go first, in any order


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tb.replica_status", "tb_replica_status"),
        ("tb.replica_request_us.sum", "tb_replica_request_us_sum"),
        ("tb.replica_request_us.max", "tb_replica_request_us_max"),
        ("tb.loop_run_for_ns_us.avg", "tb_loop_run_for_ns_us_avg"),
        ("tb.planned_stop", "tb_planned_stop"),
    ],
)
def test_names_are_as_prometheus_wants_them(name: str, expected: str) -> None:
    kind: datagram.Kind = "c" if name.endswith("sum") else "g"
    metric = naming.metric_of(Sample(name, 1, kind, (("replica", "0"), ("cluster", "c"))))
    assert metric is not None
    assert (metric.name, metric.labels) == (expected, (("cluster", "c"), ("replica", "0")))


@pytest.mark.parametrize(
    "sample",
    [
        Sample("tb.replica_status", 0, "c", (("cluster", "c"), ("replica", "0"))),
        Sample("tb.replica_request_us.sum", 0, "g", (("cluster", "c"), ("replica", "0"))),
        Sample("tb.replica_status", 0, "g", (("replica", "0"),)),
        Sample("tb.replica_status", 0, "g", (("cluster", "c"),)),
        Sample("tb.replica_status", 0, "g", (("cluster", "c"), ("replica", "0"), ("a-b", "1"))),
        Sample("tb.a.b.c", 0, "g", (("cluster", "c"), ("replica", "0"))),
        Sample("other.replica_status", 0, "g", (("cluster", "c"), ("replica", "0"))),
    ],
)
def test_what_is_no_metric_of_a_replica_is_refused(sample: Sample) -> None:
    assert naming.metric_of(sample) is None
