"""Which tests stay in one process, and which processes may not all take what is scarce.

A test says by its marks and fixtures what it needs: ``genuine`` or the fixture ``takes_memory`` is
memory for a cluster, ``remote`` is a bed of servers. Leases are what is held; this sees to it that
a process has something else to do while the others hold all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from tests import leases

#: Test → its group, in pytest's cache: the process that hands out tests knows only their names.
_GROUPS = "wallet-service/groups"
#: Test → seconds that it took the last time, there too, unless it is quick.
_DURATIONS = "wallet-service/seconds"
_QUICK_S = 0.5

MEMORY, BED = "memory", "bed"
#: Replicas of a cluster, and servers of a bed, as most of the tests have them.
_CLUSTER, _SERVERS = 3, 5

#: Group → seconds on two cores, where its tests have not run yet: the longest are begun first.
SEEN = {
    "tests/docker/test_seed_commands.py memory": 330,
    "tests/docker/test_doctor.py": 300,
    "tests/deploy/test_deploy.py": 190,
    "tests/operate/test_recover.py memory": 150,
    "tests/operate/test_backup.py memory": 150,
    "tests/load/test_disturbed.py": 140,
    "tests/docker/test_interruptions.py": 130,
    "tests/docker/test_doctor_server.py": 130,
    "tests/remote/test_interruptions.py bed": 130,
    "tests/docker/test_deploy.py": 120,
    "tests/resilience/test_faults.py memory": 110,
    "tests/operate/test_interruptions.py": 110,
    "tests/operate/test_backup.py": 100,
    "tests/monitoring/test_live.py": 100,
    "tests/deploy/test_deploy.py memory": 90,
    "tests/remote/test_refusals.py bed": 90,
    "tests/deploy/test_restart_under_load.py memory": 90,
    "tests/load/test_run.py": 80,
    "tests/deploy/test_refusals.py": 60,
    "tests/deploy/test_quickstart.py": 55,
    "tests/operate/test_broken_machines.py": 55,
}


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


def remember_seconds(config: pytest.Config, took: Mapping[str, float]) -> None:
    """Note how long each test took, for the next run."""
    assert config.cache
    known = config.cache.get(_DURATIONS, {})
    config.cache.set(_DURATIONS, known | {t: round(s, 1) for t, s in took.items() if s > _QUICK_S})


def seconds(config: pytest.Config, groups: Mapping[str, str]) -> Mapping[str, float]:
    """Group → seconds of its tests, of which ``groups`` tells the group."""
    assert config.cache
    took, known = config.cache.get(_DURATIONS, {}), Counter(dict.fromkeys(groups.values(), 0.0))
    for test, group in groups.items():
        known[group] += took.get(test, 0.0)
    return {group: known[group] or SEEN.get(group, 0.0) for group in known}


class ByNeed(LoadFileScheduling):  # type: ignore[misc] # untyped
    """A group to one process; of what is scarce, all to as many processes as there is room for.

    None waits then for what the others hold. Not by xdist's own groups: since pytest 9.2 a test's
    id no longer takes their names.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._groups: dict[str, str] = {}
        self._rooms = {
            MEMORY: leases.replicas_max() // _CLUSTER,
            # Each is a cluster under test, and the tools that act on it: mostly it waits.
            BED: min(leases.servers_max() // _SERVERS, psutil.cpu_count() or 1),
        }
        self._shares: dict[str, dict[str, int]] = {}

    def _split_scope(self, nodeid: str) -> str:
        self._groups = self._groups or known_groups(self.config)
        group = self._groups.get(nodeid, nodeid.partition("::")[0])
        need = _need(group)
        if not need or (rooms := self._rooms[need]) >= self.numnodes:
            return group
        if need not in self._shares:
            chosen = {test: self._groups.get(test, "") for test in self.collection}
            took = seconds(self.config, {t: g for t, g in chosen.items() if _need(g) == need})
            self._shares[need] = shared_out(took, rooms)
        return f"{self._shares[need][group]} {need}"

    def _assign_work_unit(self, node: Any) -> None:
        left = [
            scope for scope, tests in self.assigned_work[node].items() if not all(tests.values())
        ]
        self.workqueue.move_to_end(first_of(self.workqueue, left), last=False)
        super()._assign_work_unit(node)


def shared_out(weights: Mapping[str, float], rooms: int) -> dict[str, int]:
    """Group → its room, so that each has about as much to do."""
    held, chosen = dict.fromkeys(range(rooms), 0.0), {}
    for group in sorted(weights, key=lambda each: (-weights[each], each)):
        chosen[group] = min(held, key=lambda room: held[room])
        held[chosen[group]] += weights[group]
    return chosen


def first_of(groups: Iterable[str], left: Iterable[str]) -> str:
    """The first that a process is best given, which has groups ``left`` to do.

    What is scarce comes first, since nobody else does it meanwhile; but not to who has some.
    """
    has_some = any(map(_need, left))
    return min(groups, key=lambda group: bool(_need(group)) == has_some)


def _need(scope: str) -> str:
    return scope.partition(" ")[2]
