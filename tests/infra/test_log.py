"""What the replicas say of themselves: release, view, primary; and no panic."""

from __future__ import annotations

import re

import pytest

from cluster.config import Replica
from cluster.tigerbeetle import log_lines
from tests.infra.world import World

_NORMAL = re.compile(r"transition_to_normal\w*: view=(?:\d+\.\.)?(\d+) (primary|backup)")


def _since_its_start(world: World, replica: Replica) -> str:
    """The log with at least its last start in it."""
    text = world.log(replica)
    if 'info(io): opening "' not in text and "(replica): " in text:
        pytest.skip("the log's beginning has rotated away: start the replica again to see it")
    return text


def _of_this_run(world: World, replica: Replica) -> str:
    """Since the last start, where the log still has it: what is over and mended is not judged."""
    text = world.log(replica)
    return text[max(text.rfind('info(io): opening "'), 0) :]


def test_the_log_of_this_run_is_free_of_panics(world: World, replica: Replica) -> None:
    assert "panic: " not in _of_this_run(world, replica)


def test_the_log_of_this_run_has_no_line_to_act_upon(world: World, replica: Replica) -> None:
    lines = _of_this_run(world, replica).splitlines()
    assert [reading.text for reading in log_lines.to_act_upon(lines)] == []


def test_the_log_says_that_the_replica_listens(world: World, replica: Replica) -> None:
    assert ": listening on " in _since_its_start(world, replica)


def test_the_replica_runs_the_configured_release(world: World, replica: Replica) -> None:
    releases = re.findall(r"info\(main\): release=(\S+)", _since_its_start(world, replica))
    assert releases[-1] == world.deployment.cluster.release


def test_the_log_names_the_emulator_exactly_where_it_is_one(world: World, replica: Replica) -> None:
    assert ("EMULATOR" in world.log(replica)) == (world.deployment.engine == "emulator")


def test_one_replica_is_primary_and_it_is_the_view_s(world: World) -> None:
    replicas = world.deployment.cluster.replicas
    last = {r.index: _NORMAL.findall(_since_its_start(world, r))[-1] for r in replicas}
    views = {int(view) for view, _ in last.values()}
    assert len(views) == 1
    primaries = [index for index, (_, role) in last.items() if role == "primary"]
    assert primaries == [views.pop() % len(last)]
