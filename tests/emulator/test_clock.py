"""The server's clock is its own, moves on request, and follows the test's when asked to.

Whoever tests a wallet freezes or moves the time of the test's process, where the server runs too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from freezegun import freeze_time

import tigerbeetle_emulator
from tests.emulator import records
from tests.emulator.book import EXPIRED_EVENT, POST, Book
from tigerbeetle_emulator import Faults

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
IN_2031 = datetime.fromisoformat("2031-01-01T00:00:00+00:00")
#: Real time never is: both are out of reach of a test's seconds.
MOMENTS = (IN_2031, IN_2031.replace(year=2001))

Frozen = Callable[[datetime], AbstractContextManager[object]]
LIBRARIES: dict[str, Frozen] = {
    "freezegun": freeze_time,
    "freezegun, ticking": lambda moment: freeze_time(moment, tick=True),
    "time-machine": lambda moment: time_machine.travel(moment, tick=False),
    "time-machine, ticking": lambda moment: time_machine.travel(moment, tick=True),
}
frozen_by = pytest.mark.parametrize("frozen", LIBRARIES.values(), ids=LIBRARIES)


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND


@pytest.fixture(params=MOMENTS, ids=("later", "earlier"))
def moment(request: pytest.FixtureRequest) -> datetime:
    found: datetime = request.param
    return found


# -- its own --------------------------------------------------------------------------------------


@frozen_by
def test_a_moved_clock_neither_expires_a_hold_nor_stamps_a_transfer(
    frozen: Frozen, moment: datetime
) -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        before = book.hold(1, seconds=3600)["timestamp"]
        with frozen(moment):
            time.sleep(0.25)  # two looks for expired holds
            assert book.pending() == 1
            during = book.pay(2)["timestamp"]
        after = book.pay(3)["timestamp"]
    assert before < during < after < before + 3600 * SECOND


@frozen_by
def test_a_server_started_while_the_clock_is_moved_has_the_real_time(
    frozen: Frozen, moment: datetime
) -> None:
    real = time.time_ns()
    with frozen(moment), tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        assert real < book.pay(1)["timestamp"] < real + 3600 * SECOND


@frozen_by
def test_a_reply_that_is_delayed_comes_while_the_clock_stands(frozen: Frozen) -> None:
    with (
        tigerbeetle_emulator.run(faults=Faults(latency=0.05)) as cluster,
        Book(cluster) as book,
        frozen(IN_2031),
    ):
        assert book.open() == [records.CREATED] * 2


@frozen_by
def test_a_hold_expires_by_itself_while_the_clock_stands(frozen: Frozen) -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        with frozen(IN_2031):
            book.hold(1, seconds=1)
            deadline = time.clock_gettime(time.CLOCK_MONOTONIC) + 10
            while book.pending():
                assert time.clock_gettime(time.CLOCK_MONOTONIC) < deadline, "still there"


@pytest.mark.parametrize("library", ["freezegun", "time_machine"])
def test_the_emulator_may_be_imported_while_the_clock_is_moved(library: str) -> None:
    """In a process of its own: here it is imported long since."""
    travel = {"freezegun": "freeze_time", "time_machine": "travel"}[library]
    script = f"""
import time
from {library} import {travel}
real = time.time_ns()
with {travel}("2031-01-01"):
    import tigerbeetle_emulator
    from tests.emulator.book import Book
    with tigerbeetle_emulator.run(faults=tigerbeetle_emulator.Faults(latency=0.01)) as cluster:
        with Book(cluster) as book:
            book.open()
            first = book.pay(1)["timestamp"]
            with {travel}("2001-01-01"):
                second = book.pay(2)["timestamp"]
assert real < first < second < real + 3600 * 10**9, (real, first, second)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr


# -- advance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("week", [timedelta(days=7), 7 * 86_400, 7 * 86_400.0])
def test_a_hold_of_a_week_expires_at_the_very_next_request(week: timedelta | float) -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        held = book.hold(1, seconds=7 * 86_400)["timestamp"]
        cluster.advance(timedelta(days=7, seconds=-5))
        assert book.pending() == 1
        cluster.advance(week)
        assert book.pay(2, flags=POST, pending_id=1)["status"] == 35  # pending_transfer_expired
        assert book.pending() == 0
        assert book.pay(3)["timestamp"] > held + 14 * DAY - 10 * SECOND


def test_holds_expire_in_order_each_at_its_own_time() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        days = {1: 5, 2: 1, 3: 3, 4: 30}
        held = {n: book.hold(n, seconds=d * 86_400)["timestamp"] for n, d in days.items()}
        cluster.advance(timedelta(days=7))
        expired = [event for event in book.events() if event["type"] == EXPIRED_EVENT]
        assert [event["transfer_id"] for event in expired] == [2, 3, 1]
        for event in expired:
            number = event["transfer_id"]
            late = event["timestamp"] - held[number] - days[number] * DAY
            assert 0 <= late < SECOND, f"hold {number} expired {late} ns after its time"


def test_time_goes_on_from_where_it_was_moved_to() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        cluster.advance(timedelta(days=365))
        book.hold(1, seconds=1)
        assert book.pending() == 1
        cluster.advance(1)
        assert book.pending() == 0


def test_time_passes_while_the_server_is_stopped() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        book.open()
        book.hold(1, seconds=3600)
        cluster.stop()
        cluster.advance(timedelta(hours=1))
        cluster.start()
        book.reconnect()
        assert book.pending() == 0


def test_a_ledger_with_a_path_goes_on_from_its_own_time(tmp_path: Path) -> None:
    """Else a hold of the second run would last a year longer than it says."""
    with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster, Book(cluster) as book:
        book.open()
        cluster.advance(timedelta(days=365))
        book.pay(1)
    with tigerbeetle_emulator.run(path=tmp_path / "data") as cluster, Book(cluster) as book:
        book.hold(2, seconds=3600)
        cluster.advance(3600)
        assert book.pending() == 0


def test_nothing_moves_when_nothing_is_asked_for() -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        real = time.time_ns()
        book.open()
        cluster.advance(0)
        assert real < book.pay(1)["timestamp"] < real + 3600 * SECOND


@pytest.mark.parametrize(
    ("by", "error", "found"),
    [
        (-1, ValueError, "found -1"),
        (timedelta(seconds=-1), ValueError, "found -1 day, 23:59:59"),
        (float("nan"), ValueError, "found nan"),
        (float("inf"), ValueError, "before 2262"),
        (timedelta(days=365 * 300), ValueError, "before 2262"),
        (1e300, ValueError, "before 2262"),
        ("7d", TypeError, "found '7d'"),
        (None, TypeError, "found None"),
    ],
)
def test_an_impossible_step_is_refused_and_moves_nothing(
    by: float, error: type[Exception], found: str
) -> None:
    with tigerbeetle_emulator.run() as cluster, Book(cluster) as book:
        real = time.time_ns()
        book.open()
        with pytest.raises(error, match=f"expected .*{found}"):
            cluster.advance(by)
        assert book.pay(1)["timestamp"] < real + 3600 * SECOND


# -- following ------------------------------------------------------------------------------------


@pytest.fixture(params=["freezegun", "time-machine"])
def moving(request: pytest.FixtureRequest) -> Iterator[Callable[[timedelta], object]]:
    """Time stands at 2031, on a server that follows; what moves it."""
    if request.param == "freezegun":
        # pytest goes on taking the time of a test, from which the next run's order follows.
        with freeze_time(IN_2031, tz_offset=-5, ignore=["_pytest"]) as freezer:
            yield freezer.tick
    else:
        with time_machine.travel(IN_2031, tick=False) as traveller:
            yield traveller.shift


def test_a_server_that_follows_has_the_time_of_the_test(
    moving: Callable[[timedelta], object],
) -> None:
    with tigerbeetle_emulator.run(clock="test") as cluster, Book(cluster) as book:
        book.open()
        for day in range(3):
            now = _ns(IN_2031) + day * DAY
            for number in range(3):  # each some nanoseconds after the one before
                assert now <= book.pay(10 * day + number + 1)["timestamp"] < now + SECOND
            moving(timedelta(days=1))


def test_a_server_that_follows_expires_a_hold_at_the_next_request_and_not_before(
    moving: Callable[[timedelta], object],
) -> None:
    with tigerbeetle_emulator.run(clock="test") as cluster, Book(cluster) as book:
        book.open()
        book.hold(1, seconds=3600)
        time.sleep(0.25)
        moving(timedelta(minutes=59))
        assert book.pending() == 1
        moving(timedelta(minutes=2))
        assert book.pending() == 0


def test_a_server_that_follows_answers_with_a_delay_all_the_same(
    moving: Callable[[timedelta], object],
) -> None:
    faults = Faults(latency=0.05)
    with tigerbeetle_emulator.run(clock="test", faults=faults) as cluster, Book(cluster) as book:
        assert book.open() == [records.CREATED] * 2


def test_time_that_goes_back_never_takes_the_ledger_with_it() -> None:
    with tigerbeetle_emulator.run(clock="test") as cluster, Book(cluster) as book:
        book.open()
        with freeze_time(IN_2031):
            first = book.pay(1)["timestamp"]
        with freeze_time(IN_2031 - timedelta(days=1)):
            assert first < book.pay(2)["timestamp"] < first + SECOND


def test_a_server_that_follows_is_not_moved_in_another_way() -> None:
    with (
        tigerbeetle_emulator.run(clock="test") as cluster,
        pytest.raises(RuntimeError, match="move that"),
    ):
        cluster.advance(1)


def test_a_server_that_follows_runs_with_the_machine_where_nobody_moves_it() -> None:
    with tigerbeetle_emulator.run(clock="test") as cluster, Book(cluster) as book:
        real = time.time_ns()
        book.open()
        # A moment is read in microseconds.
        assert real - 1000 <= book.pay(1)["timestamp"] < real + 3600 * SECOND


def test_an_unknown_clock_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="clock: expected 'own' or 'test', found 'frozen'"),
        tigerbeetle_emulator.run(clock="frozen"),  # type: ignore[arg-type]
    ):
        pass
