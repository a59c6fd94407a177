"""The capacity search: what it asks for, what it makes of windows, and what it then says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.refusal import Refusal
from loadtests import capacity, others
from loadtests.others import Process, Usage
from loadtests.report import curve, report
from loadtests.report.curve import CAPACITY, Capacity, SearchWindow, WindowVerdict, read_capacity
from loadtests.run import runs
from loadtests.run.result import Figures
from loadtests.run.series import figures
from loadtests.search import FOREIGN_PERCENT, GROWTH, PRECISION, VOIDS_MAX, Search, judge
from tests.load.samples import STARTED, manifest, second

Judge = Callable[[float], WindowVerdict]


def run(search: Search, verdict: Judge, windows_max: int = 500) -> Search:
    for _ in range(windows_max):
        if search.done:
            return search
        search.feed(verdict(search.rate))
    raise AssertionError(f"no end after {windows_max} windows, at {search.rate}")


@pytest.mark.parametrize("carried", [3, 450, 777, 12_000, 123_456])
def test_the_knee_is_found_to_a_tenth(carried: int) -> None:
    search = run(Search(rate=500), lambda rate: "good" if rate <= carried else "bad")
    assert search.knee is not None
    assert carried / 1.15 <= search.knee <= carried


def test_one_spoilt_window_of_three_changes_nothing() -> None:
    answers = random.Random(4)
    spoilt: list[float] = []

    def verdict(rate: float) -> WindowVerdict:
        if rate > 5000:
            return "bad"
        if rate not in spoilt and answers.random() < 0.5:
            spoilt.append(rate)
            return "bad"
        return "good"

    search = run(Search(rate=500), verdict)
    assert search.knee is not None
    assert search.knee > 5000 / 1.15


def test_a_rate_that_failed_in_a_bad_minute_is_tried_again() -> None:
    windows = 0

    def verdict(rate: float) -> WindowVerdict:
        nonlocal windows
        windows += 1
        disturbed = 4 <= windows <= 8  # everything fails for a while
        return "good" if rate <= 10_000 and not disturbed else "bad"

    search = run(Search(rate=500), verdict)
    assert search.knee is not None
    assert search.knee > 10_000 / 1.2


def test_a_search_begins_near_what_the_probe_carried() -> None:
    """Sixteen of 28 windows were once spent far below the knee."""
    search = run(Search(rate=500), lambda rate: "good" if rate <= 6975 else "bad")
    assert search.history[0][0] == 4000
    assert min(rate for rate, _ in search.history) == 4000
    assert len(search.history) <= 16
    assert search.knee is not None
    assert 6975 / (1 + PRECISION) <= search.knee <= 6975


def test_from_one_step_of_growth_it_takes_two_halvings() -> None:
    assert GROWTH ** (1 / 4) < 1 + PRECISION


def test_a_probe_decides_nothing() -> None:
    """A burst is carried for two seconds that is not carried for long, and the other way round."""
    brief: list[WindowVerdict] = ["good"] * 6  # up to 16,000
    burst = run(
        Search(rate=500), lambda rate: brief.pop() if brief else ("good" if rate < 900 else "bad")
    )
    assert burst.knee is not None
    assert 900 / 1.15 <= burst.knee < 900
    spoilt: list[WindowVerdict] = ["bad"]
    late = run(
        Search(rate=500),
        lambda rate: spoilt.pop() if spoilt else ("good" if rate < 9000 else "bad"),
    )
    assert late.knee is not None
    assert 9000 / 1.15 <= late.knee < 9000


def test_windows_that_are_all_void_end_the_search_soon_and_unknown() -> None:
    search = run(Search(rate=500), lambda _rate: "void")
    assert (search.knee, search.is_disturbed, len(search.history)) == (None, True, VOIDS_MAX)


def test_a_machine_that_is_mostly_disturbed_gives_no_answer() -> None:
    """13 of 19 windows were void, and 333 actions/s were once the answer."""
    quiet = random.Random(1)

    def verdict(rate: float) -> WindowVerdict:
        if quiet.random() > 6 / 19:
            return "void"
        return "good" if rate <= 7000 else "bad"

    search = run(Search(rate=500), verdict)
    assert search.is_disturbed
    assert len(search.history) < 19


def test_a_few_void_windows_are_repeated_and_change_nothing() -> None:
    count = 0

    def verdict(rate: float) -> WindowVerdict:
        nonlocal count
        count += 1
        return "void" if count % 3 == 0 else "good" if rate <= 7000 else "bad"

    search = run(Search(rate=500), verdict)
    assert not search.is_disturbed
    assert search.knee is not None
    assert 7000 / 1.15 <= search.knee <= 7000


def test_a_knee_that_others_hide_is_carried_at_least() -> None:
    search = run(Search(rate=500), lambda rate: "good" if rate <= 7000 else "void")
    assert search.is_disturbed
    assert search.knee is not None
    assert 7000 / GROWTH < search.knee <= 7000


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


# -- one window --------------------------------------------------------------------------------


def window_of(
    ok: int = 100, milliseconds: float = 2.0, *, drops: int = 0, unknown: int = 0
) -> Figures:
    made = [second(STARTED + i, milliseconds, ok=ok, unknown=unknown) for i in range(5)]
    made[0]["drops"] = drops
    return figures(made, 5.0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (window_of(), "good"),
        (window_of(milliseconds=99), "good"),
        (window_of(milliseconds=102), "bad"),
        (window_of(ok=92), "bad"),
        (window_of(drops=1), "bad"),
        (window_of(unknown=1), "bad"),
        (window_of(ok=0), "bad"),
    ],
    ids=["good", "within", "slow", "too few", "dropped", "unknown", "nothing"],
)
def test_a_window_is_judged_by_its_own_figures(found: Figures, verdict: WindowVerdict) -> None:
    quiet, busy = FOREIGN_PERCENT - 1, FOREIGN_PERCENT + 1
    assert judge(found, rate=100, p99_ms=100, others_percent=quiet) == verdict
    assert judge(found, rate=100, p99_ms=100, others_percent=busy) == (
        "good" if verdict == "good" else "void"
    )


# -- who else used the machine -----------------------------------------------------------------


def usage(processes: dict[int, tuple[str, int, float]], **seconds: float) -> Usage:
    return Usage(
        {"user": 0.0, "system": 0.0, "idle": 0.0, "steal": 0.0} | seconds,
        {pid: Process(*process) for pid, process in processes.items()},
    )


BEFORE = usage(
    {
        10: ("make", 1, 1.0),
        11: ("locust", 10, 5.0),
        20: ("server", 1, 9.0),
        60: ("ninja", 1, 1.0),
        61: ("cc1", 60, 8.0),
        62: ("as", 61, 0.5),
    }
)


@pytest.mark.parametrize(
    ("after", "percent", "who"),
    [
        (usage({10: ("make", 1, 1.0)}, idle=10), 0, ()),
        # Ours, what ours has started, the kernel's threads, and Docker's proxy.
        (
            usage(
                {
                    10: ("make", 1, 2.0),
                    11: ("locust", 10, 7.0),
                    12: ("worker", 11, 1.0),
                    20: ("server", 1, 10.0),
                    30: ("kworker/0:1", 2, 1.0),
                    31: ("docker-proxy", 1, 1.0),
                },
                user=7,
                idle=3,
            ),
            0,
            (),
        ),
        (
            usage(
                {
                    11: ("locust", 10, 7.0),
                    10: ("make", 1, 1.0),
                    40: ("cc1", 1, 3.0),
                    41: ("cc1", 1, 1.0),
                },
                user=6,
                idle=4,
            ),
            40,
            ("cc1 40 %",),
        ),
        # A compiler was started and has ended: whoever started it is told.
        (usage({10: ("make", 1, 1.0), 50: ("sh", 1, 4.0)}, user=4, idle=6), 40, ("sh 40 %",)),
        # An earlier one has ended: what it had used before is not of this time.
        (usage({60: ("ninja", 1, 10.0)}, user=1, idle=9), 10, ("ninja 5 %",)),
        # Nobody is seen any more, or the time was another machine's.
        (usage({}, user=5, idle=5), 50, ()),
        (usage({}, steal=3, idle=7), 30, ("the hypervisor 30 %",)),
        # A pid that was used again.
        (usage({10: ("cat", 99, 0.5), 20: ("server", 1, 9.0)}, user=1, idle=9), 10, ("cat 5 %",)),
    ],
    ids=["idle", "ours", "compiler", "ended", "of before", "gone", "stolen", "pid used again"],
)
def test_what_others_used_is_told_from_the_load_s_own(
    after: Usage, percent: float, who: tuple[str, ...]
) -> None:
    ours = [20] if after.processes.get(10, Process("", 0, 0)).name == "cat" else [10, 20]
    found = others.between(BEFORE, after, ours)
    assert (round(found.percent, 6), found.who) == (percent, who)


def test_this_machine_is_read() -> None:
    before = others.read()
    found = others.between(before, others.read(), before.processes)
    assert 0 <= found.percent <= 100


# -- what is said ------------------------------------------------------------------------------


def tried(rate: float, verdict: WindowVerdict, **more: Any) -> SearchWindow:
    window: dict[str, Any] = {
        "rate": rate,
        "is_probe": False,
        "verdict": verdict,
        "actions_per_s": rate,
        "p50_ms": 2.0,
        "p99_ms": 20.0 if verdict == "good" else 300.0,
        "drops": 0 if verdict == "good" else 7,
        "unknown": 0,
        "transfers_per_request": 9.0,
        "generator_cpu_percent": 30.0,
        "others_percent": 45.0 if verdict == "void" else 3.0,
        "others": ["cc1 40 %"] if verdict == "void" else [],
    }
    return SearchWindow.model_validate(window | more)


GOOD, BAD, VOID = tried(1000, "good"), tried(2000, "bad"), tried(2000, "void")
PROBE = tried(500, "good", is_probe=True)


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (None, 4, ["unknown", "cut off"]),
        (Capacity(p99_ms=100), 4, ["unknown", "cut off"]),
        (Capacity(p99_ms=100, knee=1000, windows=[GOOD]), 4, ["unknown", "1,000", "cut off"]),
        (Capacity(p99_ms=100, windows=[PROBE, VOID]), 4, ["unknown, no rate", "cut off"]),
        (
            Capacity(p99_ms=100, knee=1000, verdict="found", windows=[PROBE, GOOD, BAD]),
            0,
            ["1,000 actions/s with p99 under 100 ms", "2 windows, 1 of a probe"],
        ),
        (
            Capacity(p99_ms=9, verdict="none", windows=[BAD, tried(300, "bad")], note="why"),
            3,
            ["not even 300 actions/s", "9 ms", "why"],
        ),
        (
            Capacity(p99_ms=100, knee=1000, verdict="disturbed", windows=[PROBE, GOOD, VOID, VOID]),
            4,
            ["unknown, 1,000 actions/s at least", "2 of 3 windows", "45 %", "cc1 40 %", "Fix:"],
        ),
        (
            Capacity(p99_ms=100, verdict="disturbed", windows=[VOID]),
            4,
            ["unknown, no rate is proven", "1 of 1"],
        ),
    ],
    ids=[
        "no file",
        "no window",
        "cut off",
        "cut off early",
        "found",
        "none",
        "disturbed",
        "all void",
    ],
)
def test_the_answer_is_a_figure_only_where_one_is_known(
    found: Capacity | None, code: int, words: list[str]
) -> None:
    said, exit_code = capacity.conclusion(found)
    assert exit_code == code, said
    assert [word for word in words if word not in said] == []


def test_a_search_survives_its_file_and_an_older_one_is_left_alone(tmp_path: Path) -> None:
    assert read_capacity(tmp_path) is None
    found = Capacity(p99_ms=100, knee=1000, verdict="found", windows=[GOOD, BAD])
    runs.write_json(tmp_path / CAPACITY, found.model_dump_json())
    assert read_capacity(tmp_path) == found
    runs.write_json(tmp_path / CAPACITY, '{"knee": 333, "history": [[500, "void"]], "note": ""}')
    assert read_capacity(tmp_path) is None
    runs.write_json(tmp_path / CAPACITY, '{"windows": [{}]}')
    with pytest.raises(Refusal, match=r"capacity\.json: expected what a run writes"):
        read_capacity(tmp_path)


def test_the_curve_shows_every_rate_once_by_windows_that_count() -> None:
    windows = [PROBE, tried(1000, "good", is_probe=True), GOOD, tried(1000, "good", p99_ms=40.0)]
    windows += [VOID, BAD, tried(3000, "void")]
    told = curve.rows(Capacity(p99_ms=100, knee=1000, windows=windows))
    assert [(row.rate, row.verdicts, row.p99_ms, row.drops, row.is_met) for row in told] == [
        (500, "probe: 1 good", 20, 0, True),
        (1000, "2 good", 30, 0, True),
        (2000, "1 void, 1 bad", 300, 7, False),
        (3000, "1 void", 300, 7, False),
    ]
    assert told[2].others == "45 %, cc1 40 %"


def test_a_terminal_shows_the_curve_too() -> None:
    found = Capacity(p99_ms=100, knee=1000, windows=[PROBE, GOOD, VOID, BAD])
    console = Console(width=120)
    with console.capture() as captured:
        console.print(capacity.table(found))
    lines = captured.get().splitlines()
    assert [word for word in ("500", "1,000", "2,000") if not any(word in x for x in lines)] == []
    assert any(
        "1 void, 1 bad" in line and "300 ms" in line and "cc1 40 %" in line for line in lines
    )


def test_the_report_of_a_search_shows_the_curve(tmp_path: Path) -> None:
    plain = report.render(manifest(), None, None, tmp_path)
    assert "each rate that was tried" not in plain
    found = Capacity(p99_ms=100, knee=1000, windows=[GOOD, BAD])
    runs.write_json(tmp_path / CAPACITY, found.model_dump_json())
    html = report.render(manifest(), None, None, tmp_path)
    assert "each rate that was tried" in html
    assert "at least, the rest is unknown" in html
