"""The capacity search, as a pure function."""

from __future__ import annotations

import random

import pytest

from loadtests.search import Search, Window


def run(search: Search, judge, windows_max: int = 500) -> Search:  # type: ignore[no-untyped-def]
    for _ in range(windows_max):
        if search.done:
            return search
        search.feed(judge(search.rate))
    raise AssertionError(f"no end after {windows_max} windows, at {search.rate}")


@pytest.mark.parametrize("capacity", [3, 450, 777, 12_000, 123_456])
def test_the_knee_is_found_to_a_tenth(capacity: int) -> None:
    search = run(Search(rate=500), lambda rate: "good" if rate <= capacity else "bad")
    assert search.knee is not None
    assert capacity / 1.15 <= search.knee <= capacity


def test_one_spoilt_window_of_three_changes_nothing() -> None:
    answers = random.Random(4)
    spoilt: list[float] = []

    def judge(rate: float) -> Window:
        if rate > 5000:
            return "bad"
        if rate not in spoilt and answers.random() < 0.5:
            spoilt.append(rate)
            return "bad"
        return "good"

    search = run(Search(rate=500), judge)
    assert search.knee is not None
    assert search.knee > 5000 / 1.15


def test_a_rate_that_failed_in_a_bad_minute_is_tried_again() -> None:
    windows = 0

    def judge(rate: float) -> Window:
        nonlocal windows
        windows += 1
        disturbed = 4 <= windows <= 8  # everything fails for a while
        return "good" if rate <= 10_000 and not disturbed else "bad"

    search = run(Search(rate=500), judge)
    assert search.knee is not None
    assert search.knee > 10_000 / 1.2


def test_void_windows_are_repeated_but_not_for_ever() -> None:
    search = run(Search(rate=500), lambda _rate: "void")
    assert search.knee is None


def test_a_cluster_that_carries_nothing_ends_the_search_without_a_knee() -> None:
    search = run(Search(rate=500), lambda _rate: "bad")
    assert search.knee is None


def test_a_search_stops_at_the_highest_rate_it_may_ask_for() -> None:
    search = run(Search(rate=500, rate_max=2000), lambda _rate: "good")
    assert search.knee == 2000


def test_a_search_that_is_over_takes_no_more_windows() -> None:
    search = run(Search(rate=500), lambda _rate: "bad")
    with pytest.raises(ValueError, match="over"):
        search.feed("good")
