"""The open loop: intended instants, from which latency counts, and what came too late."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter

import gevent
import pytest

from loadtests.run.arrivals import Arrivals, gaps


@pytest.mark.parametrize("process", ["poisson", "fixed"])
def test_gaps_average_one(process) -> None:  # type: ignore[no-untyped-def]
    source = gaps(process, 1)
    drawn = [next(source) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(1, rel=0.05)
    assert min(drawn) >= 0


def take(arrivals: Arrivals, seconds: float, pool: int = 4) -> list[float]:
    taken: list[float] = []

    def work() -> None:
        while (instant := arrivals.take()) is not None:
            taken.append(instant)

    workers = [gevent.spawn(work) for _ in range(pool)]
    gevent.sleep(seconds)
    arrivals.close()
    gevent.joinall(workers, timeout=5)
    assert all(worker.ready() for worker in workers)
    return taken


def test_arrivals_keep_their_schedule() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    arrivals.rate = 200
    taken = sorted(take(arrivals, 1.0))
    gaps_s = [after - before for before, after in pairwise(taken)]
    assert gaps_s == pytest.approx([1 / 200] * len(gaps_s))
    assert len(taken) > 100


def test_a_busy_pool_finds_the_intended_instants_in_the_past() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    arrivals.rate = 100
    arrivals.take()
    gevent.sleep(0.5)  # the only worker is busy: half a second of arrivals is due
    late = perf_counter() - (arrivals.take() or 0.0)
    assert late > 0.4
    arrivals.close()


def test_what_cannot_start_in_time_is_dropped_and_counted() -> None:
    drops: list[int] = []
    arrivals = Arrivals(process="fixed", drop_after_s=0.1, on_drop=drops.append)
    arrivals.rate = 100
    gevent.sleep(0.6)
    instant = arrivals.take()
    assert instant is not None
    assert perf_counter() - instant < 0.2
    assert sum(drops) > 20
    arrivals.close()


def test_nothing_arrives_before_a_rate_is_set_and_a_change_is_followed() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    waiting = gevent.spawn(arrivals.take)
    gevent.sleep(0.2)
    assert not waiting.ready()
    arrivals.rate = 0.001  # one in a quarter of an hour
    gevent.sleep(0.1)
    arrivals.rate = 1000
    assert waiting.get(timeout=2) is not None
    arrivals.close()


def test_closing_releases_who_waits() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    waiting = gevent.spawn(arrivals.take)
    gevent.sleep(0.05)
    arrivals.close()
    assert waiting.get(timeout=2) is None
    assert arrivals.take() is None


def test_a_killed_worker_loses_no_arrival() -> None:
    arrivals = Arrivals(process="fixed", drop_after_s=5, on_drop=lambda _n: None)
    idle = [gevent.spawn(arrivals.take) for _ in range(3)]
    gevent.sleep(0.05)
    gevent.killall(idle)
    arrivals.rate = 100
    first = arrivals.take()
    second = arrivals.take()
    assert first is not None and second is not None
    assert second - first == pytest.approx(0.01)
    arrivals.close()
