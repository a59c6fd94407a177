"""The meter: what one second holds, and that the next begins empty."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from loadtests.client.records import CREATED, EXISTS, RESULT
from loadtests.run.arrivals import Overdue
from loadtests.run.histogram import Histogram
from loadtests.run.meter import Meter


def test_outcomes_are_counted_apart_and_reasons_kept() -> None:
    meter = Meter(3)
    for outcome, reason in [
        ("ok", ""),
        ("ok", ""),
        ("rejected", "exceeds_credits"),
        ("unknown", "no reply in time"),
    ]:
        meter.add("pay", outcome, perf_counter(), reason)
    second = meter.second(1.0, cpu_percent=5.0, users=9)
    pay = second["actions"]["pay"]
    assert (pay["ok"], pay["rejected"], pay["unknown"], pay["error"]) == (2, 1, 1, 0)
    assert pay["reasons"] == {"exceeds_credits": 1, "no reply in time": 1}
    assert (second["worker"], second["users"], second["cpu_percent"]) == (3, 9, 5.0)


def test_an_unanswered_action_counts_with_the_time_it_was_waited_for() -> None:
    meter = Meter(0)
    meter.add("pay", "unknown", perf_counter() - 5.0, "no reply in time")
    buckets = meter.second(1.0, cpu_percent=0, users=0)["actions"]["pay"]["buckets"]
    assert Histogram(buckets).percentile_ms(50) == pytest.approx(5000, rel=0.02)


def test_only_created_and_existing_transfers_are_acknowledged() -> None:
    meter = Meter(0)
    results = np.zeros(4, RESULT)
    results["status"] = (CREATED, EXISTS, 54, 1)
    meter.add_request(4, results, 0.01)
    meter.add_request(7, None, 0.01)
    second = meter.second(1.0, cpu_percent=0, users=0)
    assert (second["transfers"], second["events"], second["requests"]) == (2, 11, 2)


def test_the_next_second_begins_empty() -> None:
    meter = Meter(0)
    meter.add("pay", "ok", perf_counter())
    meter.add_lag(0.02)
    meter.drops += 3
    first = meter.second(1.0, cpu_percent=0, users=0)
    assert (first["drops"], round(first["lag_max_ms"])) == (3, 20)
    empty = meter.second(2.0, cpu_percent=0, users=0, tail=True)
    assert (empty["actions"], empty["drops"], empty["lag_max_ms"]) == ({}, 0, 0.0)
    assert empty["tail"]


def test_an_action_s_time_is_told_apart_into_waiting_packet_and_generator() -> None:
    meter = Meter(0)
    for latency, waiting, packet in [(0.010, 0.006, 0.003), (0.100, 0.090, 0.005)]:
        meter.add("pay", "ok", perf_counter() - latency, waits=(waiting, packet))
    meter.add("balance", "unknown", perf_counter() - 0.5, waits=(0.0, 0.5))
    second = meter.second(1.0, cpu_percent=0, users=0)
    actions, no_user, waiting, packet, generator = second["actions"]["pay"]["parts"]
    assert (actions, no_user) == (2, 0.0)
    assert (waiting, packet) == pytest.approx((0.096, 0.008))
    assert generator == pytest.approx(0.006, abs=0.005)
    assert second["actions"]["balance"]["parts"][:4] == pytest.approx((1, 0.0, 0.0, 0.5))
    by_latency = [second["parts"][bucket] for bucket in sorted(second["parts"])]
    assert [sums[:4] for sums in by_latency] == [
        pytest.approx((1, 0.0, 0.006, 0.003)),
        pytest.approx((1, 0.0, 0.090, 0.005)),
        pytest.approx((1, 0.0, 0.0, 0.5)),
    ]


def test_the_generator_s_part_is_never_negative() -> None:
    """The client's own thread and the hub read the clock at different instants."""
    meter = Meter(0)
    meter.add("pay", "ok", perf_counter(), waits=(0.001, 0.001))
    assert meter.second(1.0, cpu_percent=0, users=0)["actions"]["pay"]["parts"][4] == 0.0


def test_time_until_a_user_was_free_is_not_the_generator_s() -> None:
    """Arrivals that wait for a user of the pool wait for the cluster, which keeps all of them."""
    meter = Meter(0)
    now = perf_counter()
    meter.add("pay", "ok", Overdue(now - 3.0, free_at=now - 0.5), waits=(0.2, 0.3))
    _, no_user, waiting, packet, generator = meter.second(1.0, cpu_percent=0, users=0)["actions"][
        "pay"
    ]["parts"]
    assert (no_user, waiting, packet) == pytest.approx((2.5, 0.2, 0.3))
    assert generator < no_user
