"""What is scarce is always in use while a test needs it, and no process waits for it in vain."""

from __future__ import annotations

import pytest

from tests.scheduling import first_of, shared_out

GROUPS = ["a.py", "0 memory", "c.py", "1 memory", "0 bed"]


@pytest.mark.parametrize(
    ("left", "chosen"),
    [([], "0 memory"), (["b.py"], "0 memory"), (["1 memory"], "a.py"), (["b.py", "1 bed"], "a.py")],
)
def test_what_is_scarce_comes_first_but_not_to_who_has_some(left: list[str], chosen: str) -> None:
    assert first_of(GROUPS, left) == chosen


@pytest.mark.parametrize("left", [[], ["b.py"], ["1 memory"]])
def test_whoever_comes_does_what_is_left(left: list[str]) -> None:
    assert first_of(["1 bed"], left) == "1 bed"
    assert first_of(["d.py"], left) == "d.py"


def test_tests_of_servers_are_shared_out_evenly_among_the_beds() -> None:
    tests = {"long bed": 47, "a bed": 25, "b bed": 16, "c bed": 14, "d bed": 9}
    shared = shared_out(tests, rooms=2)
    sizes = [sum(tests[group] for group in tests if shared[group] == room) for room in (0, 1)]
    assert sorted(sizes) == [55, 56]
    assert shared_out({}, rooms=2) == {}
    assert set(shared_out(tests, rooms=1).values()) == {0}
