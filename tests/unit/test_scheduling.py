"""What is scarce is always in use while a test needs it, and no process waits for it in vain."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster import REPOSITORY
from tests.scheduling import SEEN, first_of, remember_seconds, seconds, shared_out

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


class Cached:
    """A pytest configuration of which only the cache is known."""

    def __init__(self) -> None:
        self.cache, self._kept = self, cast("dict[str, Any]", {})

    def get(self, key: str, default: object) -> object:
        return self._kept.get(key, default)

    def set(self, key: str, value: object) -> None:
        self._kept[key] = value


def test_a_group_takes_as_long_as_its_chosen_tests_took_the_last_time() -> None:
    config: Any = Cached()
    remember_seconds(config, {"a": 7.0, "b": 3.04, "left out": 99.0, "quick": 0.1})
    remember_seconds(config, {"a": 5.0})
    groups = {"a": "g memory", "b": "g memory", "quick": "h", "new": "h"}
    assert seconds(config, groups) == {"g memory": 8.0, "h": 0.0}


def test_a_run_that_skipped_a_group_has_not_made_it_quick() -> None:
    config: Any = Cached()
    group = "tests/docker/test_seed_commands.py memory"
    remember_seconds(config, {"test": 0.0})
    assert seconds(config, {"test": group}) == {group: SEEN[group]}


@pytest.mark.parametrize("group", SEEN)
def test_what_was_seen_is_of_a_file_that_is_there(group: str) -> None:
    assert (REPOSITORY / group.partition(" ")[0]).is_file()


def test_tests_of_servers_are_shared_out_evenly_among_the_beds() -> None:
    tests = {"long bed": 47, "a bed": 25, "b bed": 16, "c bed": 14, "d bed": 9}
    shared = shared_out(tests, rooms=2)
    sizes = [sum(tests[group] for group in tests if shared[group] == room) for room in (0, 1)]
    assert sorted(sizes) == [55, 56]
    assert shared_out({}, rooms=2) == {}
    assert set(shared_out(tests, rooms=1).values()) == {0}
