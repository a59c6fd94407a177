"""Every wait has a bound and tells what it last saw."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cluster.tigerbeetle import waiting
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


@dataclass
class Clock:
    """The time that a wait sees, and how long it has slept."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize(("look_s", "rest_s"), [(0.0, 0.2), (0.7, 0.7), (30.0, 1.0)])
def test_it_rests_as_long_as_a_look_took_so_that_what_it_waits_for_gets_on(
    monkeypatch: pytest.MonkeyPatch, look_s: float, rest_s: float
) -> None:
    monkeypatch.setattr(waiting, "time", clock := Clock())
    sights = iter([False, True])

    def observe() -> tuple[bool, str]:
        clock.now += look_s
        return next(sights), ""

    wait_until(observe, what="x", timeout_s=60)
    assert clock.slept == pytest.approx([rest_s])


def test_what_the_observer_raises_ends_the_wait() -> None:
    def observe() -> tuple[bool, str]:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        wait_until(observe, what="x", timeout_s=60)
