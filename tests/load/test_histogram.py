"""The histogram: fine below a millisecond, and never far from the truth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.run.histogram import Histogram


@given(st.lists(st.floats(2e-6, 1000.0), min_size=1, max_size=200), st.sampled_from([50, 95, 99]))
def test_a_percentile_is_within_two_per_cent_of_the_sorted_list(
    seconds: list[float], percent: int
) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    rank = max(1, -(-len(seconds) * percent // 100))
    truth_ms = sorted(seconds)[rank - 1] * 1000
    assert histogram.percentile_ms(percent) == pytest.approx(truth_ms, rel=0.02)


def test_durations_below_a_millisecond_are_told_apart() -> None:
    histogram = Histogram()
    histogram.add([0.00020, 0.00045, 0.00090])
    assert len(histogram.buckets) == 3


@given(st.lists(st.floats(0, 10)), st.lists(st.floats(0, 10)))
def test_merging_two_is_counting_both(one: list[float], two: list[float]) -> None:
    merged, together, other = Histogram(), Histogram(), Histogram()
    merged.add(one)
    other.add(two)
    merged.merge(other.buckets)
    together.add([*one, *two])
    assert merged.buckets == together.buckets
    assert merged.total == len(one) + len(two)


def test_an_empty_one_has_no_percentile() -> None:
    assert Histogram().percentile_ms(99) is None


def test_what_lies_outside_is_counted_at_the_ends() -> None:
    histogram = Histogram()
    histogram.add([0.0, 1e9])
    assert histogram.total == 2
