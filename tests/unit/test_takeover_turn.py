"""Replicas are taken over in turn; one that does not come back is put back, the rest left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyinfra.api.exceptions import DeployError

from cluster.checks.adoption import Standing
from cluster.checks.foreign import Note
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import ReplicaHealth, Unhealthy
from cluster.operate import rollout
from cluster.operate.adopt import Survey
from cluster.runtimes.systemd import Systemd
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong
from tasks import adopt
from tests.unit.test_takeover import made


@dataclass
class Cluster3:
    """Replicas of which each is served by somebody else, by ours, or by nobody; all is told."""

    deployment: Deployment
    states: dict[int, str]
    sick: set[int] = field(default_factory=set)  # normal under nobody
    breaks: dict[int, str] = field(default_factory=dict)  # step → what goes wrong with it
    did: list[str] = field(default_factory=list)

    def act(self, index: int, line: str) -> None:
        verb = "take" if "echo started" in line else "back" if "echo stopped" in line else "tidy"
        self.did.append(f"{verb} {index}")
        if verb == "take" and self.breaks.get(index) == "start":
            raise DeployError("replica: `a long\nscript` failed: \nno such unit")
        if verb != "tidy":
            self.states[index] = "ours" if verb == "take" else "foreign"

    def health_of(self, _: Deployment, left: set[int], __: object) -> list[ReplicaHealth]:
        def look(index: int) -> ReplicaHealth:
            state = self.states[index]
            is_normal = state == "foreign" and index in left
            is_normal |= state == "ours" and self.breaks.get(index) != "settle"
            is_normal &= index not in self.sick
            return ReplicaHealth(
                replica=self.deployment.cluster.replicas[index],
                process="RUNNING" if is_normal else "STARTING",
                pid=7,
                port_open=True,
                log=ReplicaLog(status="normal", is_primary=index == 1),
                pong=Pong(replica=index, release="0.17.9", view=1, ms=1.0),
            )

        return list(map(look, self.states))


@pytest.fixture
def cluster3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster3:
    world = made(tmp_path, monkeypatch)
    three = Cluster3(world.deployment, dict.fromkeys(range(3), "foreign"))
    note = Note(str(world.old), "0:0", "600", "7", "true")

    def survey(_: Deployment) -> Survey:
        def stands(index: int) -> Standing:
            state = three.states[index]
            running = world.process(7) if state == "foreign" else None
            return Standing(index, state, running, note=None if running else note)  # type: ignore[arg-type]

        standings = {index: stands(index) for index in three.states}
        return Survey({}, {}, standings)

    monkeypatch.setattr(adopt, "survey", survey)
    monkeypatch.setattr(adopt, "health_of", three.health_of)
    monkeypatch.setattr(health, "probe", lambda _: Canary(True, "committed"))
    monkeypatch.setattr(health, "START_TIMEOUT_S", 0.0)
    for bound in ("GATE_TIMEOUT_S", "CATCH_UP_TIMEOUT_S", "CATCH_UP_POLL_S"):
        monkeypatch.setattr(rollout, bound, 0.0)
    monkeypatch.setattr(Systemd, "states", lambda _: {})
    monkeypatch.setattr(Systemd, "log_tail", lambda *_: ["its last line"])
    return three


def take_all(cluster: Cluster3) -> list[str]:
    """What was told."""
    told: list[str] = []
    adopt.Takeover(cluster.deployment, cluster.act, told.append).run()
    return told


TIDIED = ["tidy 0", "tidy 1", "tidy 2"]


def test_all_are_taken_over_in_turn_the_primary_last(cluster3: Cluster3) -> None:
    take_all(cluster3)
    assert cluster3.did == ["take 0", "take 2", "take 1", *TIDIED]


def test_what_was_cut_off_comes_first_and_ours_are_left_alone(cluster3: Cluster3) -> None:
    cluster3.states = {0: "foreign", 1: "ours", 2: "stopped"}
    take_all(cluster3)
    assert cluster3.did == ["take 2", "take 0", *TIDIED]


def test_where_all_are_ours_nothing_is_taken_over(cluster3: Cluster3) -> None:
    cluster3.states = dict.fromkeys(range(3), "ours")
    take_all(cluster3)
    assert cluster3.did == TIDIED


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("start", "expected to take replica 2 over, found: no such unit"),
        ("settle", "(?s)with replica 2, found otherwise.*left as they were: 1.*its last line"),
    ],
)
def test_one_that_does_not_come_back_is_put_back_and_the_rest_left(
    cluster3: Cluster3, how: str, said: str
) -> None:
    cluster3.breaks = {2: how}
    with pytest.raises(Unhealthy, match=said):
        take_all(cluster3)
    assert cluster3.did == ["take 0", "take 2", "back 2"]
    assert cluster3.states == {0: "ours", 1: "foreign", 2: "foreign"}


def test_another_one_that_falls_ill_meanwhile_puts_nothing_back(cluster3: Cluster3) -> None:
    def act(index: int, line: str) -> None:
        Cluster3.act(cluster3, index, line)
        cluster3.sick = {1}

    with pytest.raises(Unhealthy, match="with replica 0, found otherwise"):
        adopt.Takeover(cluster3.deployment, act, lambda _: None).run()
    assert cluster3.did == ["take 0"]


def test_nothing_is_touched_while_the_cluster_does_not_commit(
    cluster3: Cluster3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "probe", lambda _: Canary(False, "no commit"))
    with pytest.raises(rollout.Stopped, match="before the first replica"):
        take_all(cluster3)
    assert cluster3.did == []
