"""One after the other: in which order, and what the gates before and after a step let through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.health.health import Unhealthy
from cluster.operate import rollout
from cluster.operate.rollout import Actions, Member, Stopped, choose, gate, renew, roll
from cluster.tigerbeetle.canary import Canary


def member(
    index: int,
    *,
    normal: bool = True,
    primary: bool = False,
    lagged_at: float | None = None,
    copying: bool = False,
) -> Member:
    said = f"replica {index} {'backup' if normal else 'exited'}"
    return Member(index, normal, primary, said, lagged_at, copying)


@dataclass
class World:
    """Replicas that restart as they should, unless told otherwise; every step is written down."""

    count: int = 3
    primary: int = 0
    out: set[int] = field(default_factory=set)
    commits: Callable[[], bool] = lambda: True
    on_step: Callable[[int], None] = lambda index: None
    on_settle: Callable[[int], None] = lambda index: None
    behind: set[int] = field(default_factory=set)  # they cannot follow a canary
    lagged: dict[int, float] = field(default_factory=dict)
    looks_to_settle: bool = True
    canaries: int = 0
    did: list[str] = field(default_factory=list)

    def actions(self) -> Actions:
        return Actions(
            look=self.look,
            commits=self.canary,
            step=self.step,
            settle=self.settle,
            tell=lambda said: None,
        )

    def look(self) -> list[Member]:
        return [
            member(
                i,
                normal=i not in self.out,
                primary=i == self.primary and i not in self.out,
                lagged_at=self.lagged.get(i),
            )
            for i in range(self.count)
        ]

    def canary(self) -> Canary:
        self.canaries += 1
        does_commit = self.commits()
        self.lagged.update({index: float(self.canaries) for index in self.behind})
        return Canary(does_commit, "a detail")

    def step(self, index: int) -> None:
        self.did.append(f"step {index}")
        self.out.discard(index)
        if index == self.primary:
            self.primary = (index + 1) % self.count
        self.on_step(index)

    def settle(self, index: int) -> list[Member]:
        self.did.append(f"settle {index}")
        before = self.look() if self.looks_to_settle else []
        self.canary()
        self.on_settle(index)
        return before


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "GATE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(rollout, "CATCH_UP_TIMEOUT_S", 0.0)
    monkeypatch.setattr(rollout, "CATCH_UP_POLL_S", 0.0)


@pytest.mark.parametrize(("primary", "order"), [(0, [1, 2, 0]), (1, [0, 2, 1]), (2, [0, 1, 2])])
def test_backups_come_first_and_the_primary_last(primary: int, order: list[int]) -> None:
    assert roll("restart", {0, 1, 2}, World(primary=primary).actions()) == order


def test_a_replica_that_is_out_comes_before_those_that_serve() -> None:
    assert roll("restart", {0, 1, 2}, World(primary=0, out={2}).actions()) == [2, 1, 0]


def test_a_primary_that_changes_on_the_way_is_still_last() -> None:
    world = World(primary=0)

    def elect(index: int) -> None:
        if index == 1:
            world.primary = 2

    world.on_step = elect
    assert roll("restart", {0, 1, 2}, world.actions()) == [1, 0, 2]


def test_each_step_is_settled_before_the_next() -> None:
    world = World()
    roll("restart", {0, 1, 2}, world.actions())
    assert world.did == ["step 1", "settle 1", "step 2", "settle 2", "step 0", "settle 0"]


def test_only_the_replicas_that_are_named_are_touched() -> None:
    world = World(count=6)
    assert roll("restart", {5, 0}, world.actions()) == [5, 0]
    assert [step for step in world.did if step.startswith("step")] == ["step 5", "step 0"]


def test_nothing_is_touched_while_another_replica_is_out() -> None:
    world = World(out={1, 2})
    with pytest.raises(Stopped, match=r"before the first replica.*beside replica 1: replica 2 exi"):
        roll("restart", {0, 1, 2}, world.actions())
    assert world.did == []


def test_a_replica_that_is_out_and_not_among_them_stops_it() -> None:
    world = World(out={2})
    with pytest.raises(Stopped, match="replica 2 exited"):
        roll("restart", {0, 1}, world.actions())
    assert world.did == []


def test_a_server_that_limits_ssh_stops_it_and_is_only_waited_for() -> None:
    world = World()
    refused = replace(member(2, normal=False), said="replica 2 refused by SSH")
    actions = replace(world.actions(), look=lambda: [member(0), member(1), refused])
    with pytest.raises(Stopped, match=r"found: .*refused by SSH.*Fix: wait a minute") as stopped:
        roll("restart", {0, 1}, actions)
    assert "make " not in str(stopped.value)
    assert world.did == []


def test_nothing_is_touched_when_the_cluster_does_not_commit() -> None:
    world = World(commits=lambda: False)
    with pytest.raises(Stopped, match="does not commit: a detail"):
        roll("restart", {0, 1, 2}, world.actions())
    assert world.did == []


def test_nothing_is_touched_while_another_replica_cannot_follow() -> None:
    world = World(behind={2})
    with pytest.raises(Stopped, match=r"before the first replica.*catching up: replica 2 backup"):
        roll("restart", {1}, world.actions())
    assert world.did == []


def test_a_replica_that_cannot_follow_may_be_touched_itself() -> None:
    assert roll("restart", {2}, World(behind={2}).actions()) == [2]


def test_the_next_waits_until_the_one_before_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "CATCH_UP_TIMEOUT_S", 30.0)
    world = World()
    world.on_step = lambda index: world.behind.add(index)
    steps_at: list[int] = []

    def commits() -> bool:
        if world.canaries % 3 == 0:  # it takes two canaries more
            world.behind.clear()
        steps_at.append(len(world.did))
        return True

    world.commits = commits
    assert roll("restart", {0, 1, 2}, world.actions()) == [1, 2, 0]
    assert [steps_at.count(done) for done in (0, 2, 4)] == [1, 2, 3]


@pytest.mark.parametrize(("looks", "canaries"), [(True, 4), (False, 6)])
def test_the_commit_that_settles_a_step_is_the_next_gates_too_if_somebody_looked_before_it(
    looks: bool, canaries: int
) -> None:
    world = World(looks_to_settle=looks)
    roll("restart", {0, 1, 2}, world.actions())
    assert world.canaries == canaries


def test_a_replica_lost_after_the_commit_that_settled_keeps_the_next_gate_shut() -> None:
    world = World(count=6)
    world.on_settle = lambda index: world.out.add(5)
    with pytest.raises(Stopped, match=r"after replicas 1, found: .*replica 5 exited"):
        roll("restart", {0, 1, 2}, world.actions())
    assert world.canaries == 2


@pytest.mark.parametrize(
    ("before", "after", "is_late"),
    [
        (None, None, False),
        (7.0, 7.0, False),  # it was behind once
        (None, 7.0, True),
        (7.0, 8.0, True),
        (7.0, None, False),  # it was started again
    ],
)
def test_who_has_complained_since_the_first_look_is_late(
    before: float | None, after: float | None, is_late: bool
) -> None:
    found = rollout.late([member(0, lagged_at=before)], [member(0, lagged_at=after)])
    assert (found != []) == is_late


def test_who_copies_the_others_state_is_late() -> None:
    assert rollout.late([member(0)], [member(0, copying=True)]) == [member(0, copying=True)]


def test_a_replica_that_is_lost_between_two_steps_stops_it() -> None:
    world = World()
    world.on_settle = lambda index: world.out.add(2) if index == 1 else None
    # Replica 2 is out, so its turn is next: that spares those that serve.
    assert roll("restart", {0, 1, 2}, world.actions()) == [1, 2, 0]
    world = World(count=6)
    world.on_settle = lambda index: world.out.update({4, 5}) if index == 1 else None
    with pytest.raises(Stopped, match=r"after replicas 1, found: .*replica 5 exited"):
        roll("restart", set(range(6)), world.actions())
    assert world.did == ["step 1", "settle 1"]


def test_a_replica_that_does_not_come_back_leaves_the_others_serving() -> None:
    def fail(index: int) -> None:
        raise Unhealthy("replica 1 fatal")

    world = World(on_settle=fail)
    with pytest.raises(Unhealthy, match=r"(?s)with replica 1.*left as they were: 0, 2.*fatal"):
        roll("restart", {0, 1, 2}, world.actions())
    assert world.did == ["step 1", "settle 1"]


def test_new_settings_start_what_is_stopped_first() -> None:
    world = World(primary=1, out={0})
    renew("new settings", {0}, {1, 2}, world.actions())
    assert world.did[:2] == ["step 0", "settle 0"]
    assert [step for step in world.did if "step" in step] == ["step 0", "step 2", "step 1"]


def test_new_settings_come_at_once_to_a_cluster_that_serves_nobody() -> None:
    world = World(commits=lambda: False)
    renew("new settings", set(), {0, 1, 2}, world.actions())
    assert world.did == ["step 0", "step 1", "step 2"]


MEMBERS = st.lists(st.booleans(), min_size=1, max_size=6).flatmap(
    lambda normal: st.integers(0, len(normal) - 1).map(
        lambda p: [
            member(i, normal=is_normal, primary=i == p and is_normal)
            for i, is_normal in enumerate(normal)
        ]
    )
)


@given(MEMBERS, st.data())
def test_the_gate_lets_no_second_replica_out(members: list[Member], data: st.DataObject) -> None:
    indexes = [m.index for m in members]
    todo = data.draw(st.sets(st.sampled_from(indexes), min_size=1))
    chosen = choose(todo, members)
    others_out = [m for m in members if m.index != chosen and not m.is_normal]
    assert (gate(chosen, members) == "") == (others_out == [])
    assert chosen in todo


@given(MEMBERS)
def test_a_serving_primary_is_chosen_only_when_nobody_else_is_left(members: list[Member]) -> None:
    chosen = choose({m.index for m in members}, members)
    if members[chosen].is_primary:
        assert len(members) == 1
