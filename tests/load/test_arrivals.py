"""The open loop: intended instants, from which latency counts, and what came too late."""

from __future__ import annotations

from itertools import pairwise

import gevent
import pytest

from loadtests.run.arrivals import Arrivals, Overdue, gaps

BOUND_S = 60  # against a hang


@pytest.mark.parametrize("process", ["poisson", "fixed"])
def test_gaps_average_one(process) -> None:  # type: ignore[no-untyped-def]
    source = gaps(process, 1)
    drawn = [next(source) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(1, rel=0.05)
    assert min(drawn) >= 0


class Clock:
    """The time that the arrivals see; it passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    def wait_for_looks(self, count: int) -> None:
        """Until it was asked so often from now on."""
        enough = self.looks + count
        with gevent.Timeout(BOUND_S):
            while self.looks < enough:
                gevent.sleep(0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("loadtests.run.arrivals.perf_counter", made)
    return made


def test_arrivals_keep_their_schedule() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=BOUND_S, on_drop=lambda _n: None)
    taken: list[float] = []

    def work() -> None:
        while (instant := arrivals.take()) is not None and len(taken) < 100:
            taken.append(instant)

    arrivals.rate = 200
    workers = [gevent.spawn(work) for _ in range(4)]
    gevent.wait(workers, BOUND_S, count=1)
    arrivals.close()
    gevent.joinall(workers, timeout=BOUND_S)
    assert all(worker.ready() for worker in workers)
    gaps_s = [after - before for before, after in pairwise(sorted(taken))]
    assert gaps_s == pytest.approx([1 / 200] * 99)


def test_a_busy_pool_finds_the_intended_instants_in_the_past(clock: Clock) -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    arrivals.rate = 100
    begun = clock.now
    clock.now += 0.01
    assert arrivals.take() == pytest.approx(begun + 0.01)
    clock.now += 0.5  # the only worker is busy: half a second of arrivals is due
    assert arrivals.take() == pytest.approx(begun + 0.02)
    arrivals.close()


def test_what_cannot_start_in_time_is_dropped_and_counted(clock: Clock) -> None:
    drops: list[int] = []
    arrivals = Arrivals(process="fixed", drop_after_s=0.1, on_drop=drops.append)
    arrivals.rate = 100
    begun = clock.now
    clock.now += 0.605
    assert arrivals.take() == pytest.approx(begun + 0.51)
    assert sum(drops) == 50
    arrivals.close()


def test_nothing_arrives_before_a_rate_is_set_and_a_change_is_followed(clock: Clock) -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    waiting = gevent.spawn(arrivals.take)
    gevent.sleep(0)
    clock.now += 1000
    assert not waiting.ready()
    arrivals.rate = 0.001  # one in a quarter of an hour
    clock.now += 1
    clock.wait_for_looks(10)  # the pacer asks a few times whenever it looks
    assert not waiting.ready()
    arrivals.rate = 1000
    clock.now += 0.001
    assert waiting.get(timeout=BOUND_S) is not None
    arrivals.close()


def test_a_rate_that_changes_all_the_time_loses_no_arrival(clock: Clock) -> None:
    """A curve sets it every second: what is left of a gap must go on, in arrivals."""
    arrivals = Arrivals(process="fixed", drop_after_s=1e9, on_drop=lambda _n: None)
    begun = clock.now
    for second in range(5):  # half an arrival a second, more or less
        arrivals.rate = 0.4 if second % 2 else 0.6
        clock.now += 1
    arrivals.rate = 0.5
    assert arrivals.take() == pytest.approx(begun + 2)
    assert arrivals.take() == pytest.approx(begun + 4)
    arrivals.close()


def test_a_rate_of_nothing_keeps_the_place_in_the_gap(clock: Clock) -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=1e9, on_drop=lambda _n: None)
    begun = clock.now
    for rate in (0.5, 0.0, 0.5):
        arrivals.rate = rate
        clock.now += 1
    arrivals.rate = 0.25
    assert arrivals.take() == pytest.approx(begun + 3)
    arrivals.close()


def test_closing_releases_who_waits() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    waiting = gevent.spawn(arrivals.take)
    gevent.sleep(0)
    arrivals.close()
    assert waiting.get(timeout=BOUND_S) is None
    assert arrivals.take() is None


def test_a_killed_worker_loses_no_arrival(clock: Clock) -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    idle = [gevent.spawn(arrivals.take) for _ in range(3)]
    gevent.sleep(0)
    gevent.killall(idle)
    arrivals.rate = 100
    clock.now += 0.02
    first = arrivals.take()
    second = arrivals.take()
    assert first is not None and second is not None
    assert second - first == pytest.approx(0.01)
    arrivals.close()


def test_an_arrival_for_which_no_user_was_free_says_when_one_was(clock: Clock) -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=BOUND_S, on_drop=lambda _n: None)
    arrivals.rate = 1
    clock.now += 1.5  # one is due, and nobody is there
    clock.wait_for_looks(3)
    clock.now += 2
    late = arrivals.take()
    assert isinstance(late, Overdue)
    assert late.free_at - late == pytest.approx(2.5)
    idle = gevent.spawn(arrivals.take)  # a second one was due meanwhile, or is next
    idle.join(0)
    while isinstance(idle.value, Overdue):
        idle = gevent.spawn(arrivals.take)
        idle.join(0)
    clock.now += 2
    idle.join(BOUND_S)
    assert type(idle.value) is float  # a user had waited for it
    arrivals.close()
