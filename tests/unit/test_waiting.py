"""Every wait has a bound and tells what it last saw."""

from __future__ import annotations

import pytest

from cluster.tigerbeetle.waiting import Expired, wait_until


def test_it_returns_the_sight_that_ended_it() -> None:
    sights = iter([(False, "one"), (False, "two"), (True, "three")])
    assert wait_until(lambda: next(sights), what="x", timeout_s=60, interval_s=0) == "three"


def test_it_expires_with_what_it_last_saw() -> None:
    with pytest.raises(Expired, match=r"waited 0\.01 s for the sun; last seen: clouds"):
        wait_until(lambda: (False, "clouds"), what="the sun", timeout_s=0.01, interval_s=0)


def test_it_looks_at_least_once_even_without_time() -> None:
    assert wait_until(lambda: (True, "there"), what="x", timeout_s=0) == "there"


def test_it_reports_each_new_sight_once() -> None:
    sights = iter([(False, "a"), (False, "a"), (False, "b"), (True, "b")])
    seen: list[str] = []
    wait_until(lambda: next(sights), what="x", timeout_s=60, interval_s=0, on_progress=seen.append)
    assert seen == ["a", "b"]


def test_what_the_observer_raises_ends_the_wait() -> None:
    def observe() -> tuple[bool, str]:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        wait_until(observe, what="x", timeout_s=60)
