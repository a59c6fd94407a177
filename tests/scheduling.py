"""Which tests stay in one process, and which processes may not all take what is scarce.

A test says by its marks and fixtures what it needs: ``genuine`` or the fixture ``takes_memory`` is
memory for a cluster, ``remote`` is a bed of servers. Leases are what is held; this sees to it that
a process has something else to do while the others hold all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from tests import leases

#: Test → its group, in pytest's cache: the process that hands out tests knows only their names.
_GROUPS = "wallet-service/groups"
#: Group → seconds that it took the last time, there too: the longest are begun first.
DURATIONS = "wallet-service/durations"

MEMORY, BED = "memory", "bed"
#: Replicas of a cluster, and servers of a bed, as most of the tests have them.
_CLUSTER, _SERVERS = 3, 5


def group_of(item: pytest.Item) -> str:
    """Tests of one file that need the same stay together, since they share its fixtures."""
    return f"{item.nodeid.partition('::')[0]} {_need_of(item)}".strip()


def _need_of(item: pytest.Item) -> str:
    if item.get_closest_marker("remote"):
        return BED
    fixtures = getattr(item, "fixturenames", ())
    if "takes_memory" in fixtures:
        return MEMORY
    # The emulator is compared with one small server, which no cluster has to wait for.
    return MEMORY if item.get_closest_marker("genuine") and "genuine_server" not in fixtures else ""


def remember(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the groups where the process that hands out tests finds them."""
    assert config.cache
    if getattr(config, "workerinput", {}).get("workerid") == "gw0":
        known = config.cache.get(_GROUPS, {})
        config.cache.set(_GROUPS, known | {item.nodeid: group_of(item) for item in items})


def known_groups(config: pytest.Config) -> dict[str, str]:
    """Test → its group, as last noted."""
    assert config.cache
    found: dict[str, str] = config.cache.get(_GROUPS, {})
    return found


class ByNeed(LoadFileScheduling):  # type: ignore[misc] # untyped
    """A group to one process; and of what is scarce as much at once as there is, no more.

    Not by xdist's own groups: since pytest 9.2 a test's id no longer takes their names.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._groups: dict[str, str] = {}
        self._rooms = {
            MEMORY: leases.replicas_max() // _CLUSTER,
            # Each is a cluster under test, and the tools that act on it: mostly it waits.
            BED: min(leases.servers_max() // _SERVERS, psutil.cpu_count() or 1),
        }
        self._beds: dict[str, int] = {}

    def _split_scope(self, nodeid: str) -> str:
        self._groups = self._groups or known_groups(self.config)
        group = self._groups.get(nodeid, nodeid.partition("::")[0])
        if _need(group) == BED and (rooms := self._rooms[BED]) < self.numnodes:
            # No process waits for a bed: as many have tests of servers as there are beds.
            self._beds = self._beds or shared_out(self._weights(BED), rooms)
            return f"{self._beds[group]} {BED}"
        return group

    def _weights(self, need: str) -> Mapping[str, float]:
        """Group → how long it takes; as long as that is not known of all, how many tests it has."""
        tests = Counter(each for each in self._groups.values() if _need(each) == need)
        took: dict[str, float] = self.config.cache.get(DURATIONS, {})
        return {each: took[each] for each in tests} if took.keys() >= tests.keys() else tests

    def _assign_work_unit(self, node: Any) -> None:
        pending = {
            each: {_need(scope) for scope, tests in work.items() if not all(tests.values())}
            for each, work in self.assigned_work.items()
        }
        own = pending.pop(node, set())
        held = Counter(need for needs in pending.values() for need in needs)
        chosen = first_of(self.workqueue, own, held, self._rooms)
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)


def shared_out(weights: Mapping[str, float], rooms: int) -> dict[str, int]:
    """Group → its room, so that each has about as much to do."""
    held, chosen = dict.fromkeys(range(rooms), 0.0), {}
    for group in sorted(weights, key=lambda each: (-weights[each], each)):
        chosen[group] = min(held, key=lambda room: held[room])
        held[chosen[group]] += weights[group]
    return chosen


def first_of(
    groups: Iterable[str], own: Collection[str], held: Mapping[str, int], rooms: Mapping[str, int]
) -> str:
    """The first that a process is best given, which has tests of needs ``own`` still to do.

    What is scarce and held by too few others goes to who has it already, or nothing else to do: it
    would lie idle behind other tests. Then what needs nothing, and last what has to wait.
    """

    def rank(group: str) -> int:
        need = _need(group)
        if not need:
            return 1
        if need in own:
            return 0
        is_there = held.get(need, 0) < rooms[need]
        return (0 if not own else 2) if is_there else 3

    return min(groups, key=rank)


def _need(scope: str) -> str:
    return scope.partition(" ")[2]
