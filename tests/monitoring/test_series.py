"""Gauges hold the newest value and go stale; counters add up for ever."""

from __future__ import annotations

from cluster.health.planned_stop import lines
from monitoring.collector.naming import GAUGE_TTL_S, PLANNED_TTL_S
from monitoring.collector.series import Series

TAGS = b"|#cluster:c,replica:0\n"


def values(series: Series) -> dict[str, float]:
    return {s.name: s.value for family in series.families() for s in family.samples}


def test_the_newest_gauge_counts() -> None:
    series = Series()
    series.receive(b"tb.replica_view:1|g" + TAGS + b"tb.replica_view:4|g" + TAGS, 0)
    assert values(series) == {"tb_replica_view": 4}


def test_counters_add_up_over_emissions() -> None:
    series = Series()
    for now in (0, 10, 20):
        series.receive(b"tb.grid_read_us.count:5|c" + TAGS + b"tb.grid_read_us.sum:9|c" + TAGS, now)
    assert values(series) == {"tb_grid_read_us_count": 15, "tb_grid_read_us_sum": 27}


def test_a_signed_gauge_adds_as_statsd_means_it() -> None:
    series = Series()
    series.receive(b"tb.replica_view:10|g" + TAGS + b"tb.replica_view:-3|g" + TAGS, 0)
    assert values(series) == {"tb_replica_view": 7}


def test_a_silent_replica_s_gauges_go_and_its_counters_stay() -> None:
    series = Series()
    series.receive(b"tb.replica_view:1|g" + TAGS + b"tb.grid_read_us.sum:5|c" + TAGS, 0)
    series.forget_stale(GAUGE_TTL_S - 0.1)
    assert len(series) == 2
    series.forget_stale(GAUGE_TTL_S)
    assert values(series) == {"tb_grid_read_us_sum": 5}
    assert len(series) == 1


def test_an_emission_keeps_a_gauge_alive() -> None:
    series = Series()
    for now in (0, 10, 20, 30, 40):
        series.receive(b"tb.replica_view:1|g" + TAGS, now)
        series.forget_stale(now)
    assert values(series) == {"tb_replica_view": 1}


def test_a_planned_stop_ends_by_itself_after_an_hour() -> None:
    series = Series()
    series.receive(lines(0, [2], is_planned=True), 0)
    (family,) = series.families()
    assert family.samples[0].labels == {"cluster": "0" * 32, "replica": "2"}
    series.forget_stale(PLANNED_TTL_S - 1)
    assert values(series) == {"tb_planned_stop": 1}
    series.forget_stale(PLANNED_TTL_S)
    assert values(series) == {}


def test_a_planned_stop_can_be_taken_back() -> None:
    series = Series()
    series.receive(lines(0, [0], is_planned=True) + lines(0, [0], is_planned=False), 0)
    assert values(series) == {"tb_planned_stop": 0}


def test_too_many_series_are_refused_and_counted() -> None:
    series = Series(series_max=10)
    for i in range(50):
        series.receive(b"tb.replica_view:1|g|#cluster:c,replica:%d" % i, 0)
    assert len(series) == 10
    assert series.rejected["too_many_series"] == 40


def test_series_that_went_stale_make_room() -> None:
    series = Series(series_max=1)
    series.receive(b"tb.replica_view:1|g|#cluster:c,replica:0", 0)
    series.forget_stale(GAUGE_TTL_S)
    series.receive(b"tb.replica_view:1|g|#cluster:c,replica:1", GAUGE_TTL_S)
    assert len(series) == 1 and not series.rejected
