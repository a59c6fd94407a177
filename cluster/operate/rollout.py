"""One replica after the other, while the cluster goes on: their order, and the gate between them.

Before each step every other replica must be in normal status and caught up. If the cluster does not
commit afterwards, the rollout stops and the rest keep serving. ``choose`` and ``gate`` are pure,
and ``roll`` acts only through its ``Actions``, so all runtimes share it: for restarts, new settings
and new programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import ReplicaHealth, Unhealthy
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.waiting import Expired, wait_until

#: A view change ends within seconds; a gate that stays closed longer will not open by itself.
GATE_TIMEOUT_S = 20.0
#: A replica that was away is in normal status while it still catches up. That takes time: 27 s were
#: seen for 2,000 operations on two busy cores; state sync takes longer.
CATCH_UP_TIMEOUT_S = 600.0
#: Each canary takes one of the cluster's 64 sessions, so waiting must not use too many.
CATCH_UP_POLL_S = 15.0


class Stopped(Unhealthy):
    """A gate stayed closed: the next replica was not touched. ``str()`` says what was seen."""


@dataclass(frozen=True)
class Member:
    """What ``choose`` and ``gate`` need to know about one replica."""

    index: int
    is_normal: bool
    is_primary: bool
    said: str  # for a person: "replica 1 backup"
    lagged_at: float | None = None  # seconds since 1970, when it last could not follow
    is_copying: bool = False  # the others' state, since it was too far behind for their log

    @classmethod
    def of(cls, seen: ReplicaHealth) -> Member:
        """A member from levels 1 and 2 of its health."""
        is_primary = seen.is_normal and seen.log.role == "primary"
        index, log = seen.replica.index, seen.log
        is_copying = log.sync.is_under_way
        return cls(index, seen.is_normal, is_primary, str(seen), log.lagged_at, is_copying)


@dataclass(frozen=True)
class Actions:
    """How a rollout sees and changes its cluster."""

    look: Callable[[], Iterable[Member]]
    commits: Callable[[], Canary]
    step: Callable[[int], None]
    settle: Callable[[int], Sequence[Member]]
    """Returns once the cluster commits with this replica: the members as they were before that
    commit, if it has looked; raises Unhealthy."""
    tell: Callable[[str], None] = print
    named: str = ""  # the inventory, as it is typed


def choose(todo: Collection[int], members: Sequence[Member]) -> int:
    """Which replica is next: first one that is not normal anyway, then backups, the primary last.

    Restarting the primary costs a view change; the new primary has had its turn already.
    """
    waiting = [member for member in members if member.index in todo]
    return min(waiting, key=lambda m: (m.is_normal, m.is_primary, m.index)).index


def gate(index: int, members: Iterable[Member]) -> str:
    """Why replica ``index`` must not be touched now; empty when it may be.

    Every *other* replica must be in normal status: then even three replicas keep their majority.
    """
    out = [member.said for member in members if member.index != index and not member.is_normal]
    return f"beside replica {index}: {', '.join(out)}" if out else ""


def late(before: Iterable[Member], after: Iterable[Member]) -> list[Member]:
    """The replicas that have not caught up with an operation committed between two looks.

    Such a replica is normal and answers, but it cannot replace another yet: if one of the others
    stops, nothing commits until it has caught up.
    """
    known = {member.index: member.lagged_at for member in before}
    return [m for m in after if m.is_copying or m.lagged_at not in (None, known.get(m.index))]


def roll(what: str, indexes: Collection[int], act: Actions) -> list[int]:
    """Do ``act.step`` on each replica in turn; the order that came about.

    Raises Stopped before a step if another replica is not ready, and Unhealthy after a step if the
    cluster does not commit again. The remaining replicas are not touched, and keep serving.
    """
    todo = set(indexes)
    done: list[int] = []
    before: Sequence[Member] = ()
    while todo:
        index = _pass_gate(what, todo, done, act, before)
        act.tell(f"{what}: replica {index} ({len(done) + 1} of {len(indexes)})")
        begun = time.monotonic()
        act.step(index)
        try:
            before = act.settle(index)
        except Unhealthy as unhealthy:
            left = ", ".join(map(str, sorted(todo - {index}))) or "none"
            raise Unhealthy(
                f"{what}: expected the cluster to commit with replica {index}, found otherwise. "
                f"Replicas left as they were: {left}. "
                f"Fix: mend replica {index}, then repeat\n{unhealthy}"
            ) from None
        act.tell(f"{what}: replica {index} is back after {time.monotonic() - begun:.1f} s")
        todo.remove(index)
        done.append(index)
    return done


def renew(what: str, stopped: Collection[int], running: Collection[int], act: Actions) -> None:
    """Do ``act.step`` on all stopped replicas together, and then in turn on those that run.

    If the cluster does not serve anyway, starting all at once loses nothing, and needs no gate.
    """
    for index in sorted(stopped):
        act.step(index)
    if running and stopped:
        act.settle(max(stopped))
    if running and act.commits().commits:
        roll(what, running, act)
    else:
        for index in sorted(running):
            act.step(index)


def _pass_gate(
    what: str, todo: Collection[int], done: Collection[int], act: Actions, before: Sequence[Member]
) -> int:
    """Wait until every other replica is normal and caught up; the replica whose turn it is.

    ``before`` are the members as they were before the last step's commit, which needs no other
    then; none of them, and this one commits for itself.
    """
    chosen = -1
    members: list[Member] = []

    def is_open() -> tuple[bool, str]:
        nonlocal chosen, members
        members = list(act.look())
        chosen = choose(todo, members)
        closed = gate(chosen, members)
        return not closed, closed or "all others are normal"

    def await_open() -> None:
        wait_until(is_open, what="every other replica to be normal", timeout_s=GATE_TIMEOUT_S)

    def keep_up() -> tuple[bool, str]:
        nonlocal before
        if not before:
            await_open()
            before = members
            canary = act.commits()
            if not canary.commits:
                raise Expired(f"the cluster does not commit: {canary.detail}")
        await_open()
        behind = [m.said for m in late(before, members) if m.index != chosen]
        before = ()
        seen = f"catching up: {', '.join(behind)}" if behind else "all others keep up"
        return not behind, seen

    try:
        wait_until(
            keep_up,
            what="every other replica to catch up",
            timeout_s=CATCH_UP_TIMEOUT_S,
            interval_s=CATCH_UP_POLL_S,
            on_progress=lambda seen: act.tell(f"  {seen}"),
        )
    except Expired as expired:
        names = ", ".join(map(str, done))
        so_far = f"after replicas {names}" if done else "before the first replica"
        back = f"bring all replicas back (make status {act.named}, make doctor {act.named})"
        fix = health.remedy(str(expired), back)
        raise Stopped(
            f"{what}: expected a cluster that can spare one replica, {so_far}, found: {expired}. "
            f"Fix: {fix}, then repeat"
        ) from None
    return chosen


def of_deployment(
    deployment: Deployment, step: Callable[[int], None], tell: Callable[[str], None] = print
) -> Actions:
    """Actions on a deployment: seen as ``make status`` sees it, settled at health level 3."""

    def settle(index: int) -> list[Member]:
        seen = health.wait(deployment, on_progress=lambda said: tell(f"  {said}"))
        return [*map(Member.of, seen)]

    logs = health.Logs(deployment)
    return Actions(
        look=lambda: map(Member.of, health.of_replicas(deployment, logs)),
        commits=lambda: health.probe(deployment),
        step=step,
        settle=settle,
        tell=tell,
        named=deployment.named,
    )
