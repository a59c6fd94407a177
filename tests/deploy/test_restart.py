"""`make restart`: every replica in turn, the primary last, and never one too many at once."""

from __future__ import annotations

import json
import re

from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox


def order(said: str) -> list[int]:
    """The replicas in the order in which their turns came, as the command told it."""
    return [int(index) for index in re.findall(r"restart: replica (\d) \(", said)]


def primary_of(made: Sandbox) -> int:
    done = made.run("python", "-m", "cluster", "status", "--json", "--no-canary")
    replicas = json.loads(done.stdout)["replicas"]
    (index,) = [r["index"] for r in replicas if r["role"] == "primary"]
    return int(index)


def await_health(made: Sandbox) -> None:
    def is_healthy() -> tuple[bool, str]:
        done = made.run("python", "-m", "cluster", "status")
        return done.returncode == 0, done.stdout

    wait_until(is_healthy, what="the cluster to be healthy", timeout_s=120)


def test_each_replica_is_restarted_once_and_the_primary_last(deployed: Sandbox) -> None:
    before, primary = deployed.pids(), primary_of(deployed)
    done = deployed.run("make", "restart", timeout_s=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(deployed.pids()).isdisjoint(before)
    took_turns = order(done.stderr)
    assert sorted(took_turns) == [0, 1, 2]
    assert took_turns[-1] == primary
    assert done.stderr.count("canary committed") == 3


def test_a_replica_that_is_stopped_is_started_before_any_other_is_touched(
    deployed: Sandbox,
) -> None:
    deployed.supervise("stop", "replica-1")
    done = deployed.pyinfra("tasks.replica.restart")
    assert done.returncode == 0, done.stderr[-4000:]
    assert order(done.stderr)[0] == 1
    assert len(order(done.stderr)) == 3


def test_it_touches_nothing_while_two_replicas_are_away(deployed: Sandbox) -> None:
    serving = deployed.pids()[0]
    deployed.supervise("stop", "replica-1", "replica-2")
    try:
        done = deployed.pyinfra("tasks.replica.restart")
        assert done.returncode == 1
        assert "restart: expected a cluster that can spare one replica" in done.stderr
        assert "found: waited 20 s" in done.stderr
        assert "replica 2 stopped" in done.stderr
        assert order(done.stderr) == []
        assert deployed.pids()[0] == serving
    finally:
        deployed.supervise("start", "replica-1", "replica-2")
        await_health(deployed)


def test_it_is_refused_where_nothing_runs(emulator: Sandbox) -> None:
    done = emulator.pyinfra("tasks.replica.restart")
    assert done.returncode == 1
    assert "expected every replica under its supervisor, found 0 of 3" in done.stderr
    assert not emulator.state_dir.exists()
