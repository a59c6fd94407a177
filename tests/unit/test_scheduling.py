"""What is scarce is always in use while a test needs it, and no process waits for it in vain."""

from __future__ import annotations

import pytest

from tests.scheduling import first_of, shared_out

ROOMS = {"memory": 2, "bed": 1}
GROUPS = ["a.py", "b.py memory", "c.py", "d.py memory", "0 bed"]


@pytest.mark.parametrize(
    ("own", "held", "chosen"),
    [
        ([], {}, "b.py memory"),
        ([], {"memory": 1}, "b.py memory"),
        ([], {"memory": 2}, "0 bed"),
        ([], {"memory": 2, "bed": 1}, "a.py"),
        ([], {"memory": 3, "bed": 2}, "a.py"),
        ([""], {}, "a.py"),
        ([""], {"memory": 2, "bed": 1}, "a.py"),
        (["memory"], {"memory": 1}, "b.py memory"),
        (["memory"], {"memory": 2}, "b.py memory"),
        (["bed"], {}, "0 bed"),
    ],
)
def test_what_is_scarce_goes_to_who_has_it_or_nothing_else_to_do(
    own: list[str], held: dict[str, int], chosen: str
) -> None:
    assert first_of(GROUPS, own, held, ROOMS) == chosen


@pytest.mark.parametrize("own", [[], [""], ["bed"]])
def test_where_all_must_wait_the_first_does(own: list[str]) -> None:
    waiting = ["d.py memory", "b.py memory"]
    assert first_of(waiting, own, {"memory": 2}, ROOMS) == "d.py memory"


def test_where_nothing_else_is_left_what_is_scarce_waits_behind_other_tests() -> None:
    waiting = ["d.py memory", "0 bed"]
    assert first_of(waiting, [""], {"memory": 2}, ROOMS) == "0 bed"


def test_tests_of_servers_are_shared_out_evenly_among_the_beds() -> None:
    tests = {"long bed": 47, "a bed": 25, "b bed": 16, "c bed": 14, "d bed": 9}
    shared = shared_out(tests, rooms=2)
    sizes = [sum(tests[group] for group in tests if shared[group] == room) for room in (0, 1)]
    assert sorted(sizes) == [55, 56]
    assert shared_out({}, rooms=2) == {}
    assert set(shared_out(tests, rooms=1).values()) == {0}
