"""`make status` as a health check: each state has its exit code, and its JSON keeps its schema."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from cluster.health import health, status
from cluster.health.health import ReplicaHealth
from cluster.health.status import Status
from cluster.tigerbeetle import ping
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong
from tests.clusters import Sandbox, sandbox

HEALTHY, DEGRADED, BAD_CONFIGURATION, DOWN, UNKNOWN = 0, 1, 2, 3, 4
JSON = ("python", "-m", "cluster", "status", "--json")


@pytest.fixture(scope="module")
def deployed() -> Iterator[Sandbox]:
    with sandbox("inventories/emulator.py") as made:
        up = made.up()
        assert up.returncode == 0, up.stderr[-2000:]
        yield made


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def asked(made: Sandbox, *options: str) -> tuple[int, dict[str, Any]]:
    done = made.run(*JSON, *options)
    Status.model_validate_json(done.stdout)  # every answer keeps the schema
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_a_cluster_that_commits_is_healthy(deployed: Sandbox) -> None:
    code, found = asked(deployed)
    assert (code, found["verdict"]) == (HEALTHY, "healthy")
    assert all(r["answers"] and not r["wedged"] for r in found["replicas"])
    assert found["canary"]["commits"]


def test_without_a_canary_the_replicas_answers_decide(deployed: Sandbox) -> None:
    found = status.read(deployed.deployment)
    assert (found.verdict, found.canary) == ("healthy", None)


def test_a_stopped_replica_is_wedged_and_the_cluster_degraded(deployed: Sandbox) -> None:
    with stopped(deployed.pids()[1]):
        code, found = asked(deployed)
    assert (code, found["verdict"], found["reason"]) == (DEGRADED, "degraded", "replica 1 wedged")
    assert found["replicas"][1]["port_open"] and found["replicas"][1]["process"] == "RUNNING"
    assert [r["wedged"] for r in found["replicas"]] == [False, True, False]
    assert asked(deployed)[1]["verdict"] == "healthy"  # it went on


def test_a_wedged_replica_is_shown_to_a_person(deployed: Sandbox) -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    with stopped(deployed.pids()[2]):
        console.print(status.drawn(status.read(deployed.deployment)))
    (row,) = (line for line in console.export_text().splitlines() if "WEDGED" in line)
    assert row.split("│")[0].strip() == "2"


def test_eighty_columns_hold_the_status_of_a_working_cluster(deployed: Sandbox) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(status.drawn(status.read(deployed.deployment)))
    assert "…" not in console.export_text()


def test_nothing_is_cut_where_no_terminal_is(deployed: Sandbox) -> None:
    with stopped(deployed.pids()[2]):
        done = deployed.run("python", "-m", "cluster", "status", "--no-canary")
    assert "WEDGED: silent" in done.stdout
    assert "…" not in done.stdout


def test_a_cluster_that_does_not_commit_is_down(deployed: Sandbox) -> None:
    first = deployed.pids()[0]  # the emulator's one node
    with stopped(first):
        code, found = asked(deployed, "--no-canary")
    assert (code, found["verdict"]) == (DOWN, "down")


def test_a_cluster_that_was_never_started_is_down(tmp_path: Path) -> None:
    code, found = asked(Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3)))
    assert (code, found["verdict"], found["reason"]) == (DOWN, "down", "no port answers")
    assert [r["process"] for r in found["replicas"]] == ["DOWN"] * 3


def test_a_bad_configuration_is_told_from_a_bad_cluster(tmp_path: Path) -> None:
    made = Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3), {"INVENTORY": "nowhere.py"})
    done = made.run(*JSON)
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, "")
    assert done.stderr.startswith("error: INVENTORY: expected ")


def test_what_cannot_be_read_is_unknown_never_healthy(tmp_path: Path) -> None:
    """No Docker to ask: nothing is known of replicas in Docker."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("env", "sh", "git"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    made = Sandbox("inventories/local.py", tmp_path, (1, 2, 3), {"PATH": str(programs)})
    code, answer = asked(made)
    assert (code, answer["verdict"], answer["replicas"]) == (UNKNOWN, "unknown", [])
    assert "docker" in answer["reason"]


def test_the_published_schema_is_the_one_in_force() -> None:
    assert status.SCHEMA_FILE.read_text(encoding="utf-8") == status.schema()


@pytest.mark.parametrize("change", [{"verdict": "fine"}, {"replicas": [{}]}, {"extra": 1}])
def test_the_schema_refuses_what_is_no_status(deployed: Sandbox, change: dict[str, object]) -> None:
    good = status.read(deployed.deployment).model_dump()
    assert Status.model_validate(good)
    with pytest.raises(ValidationError):
        Status.model_validate(good | change)


REPLICAS = Sandbox(
    "inventories/emulator.py", Path("/nowhere"), tuple(range(1, 7))
).deployment.cluster


def seen(index: int, **changes: Any) -> ReplicaHealth:
    """A replica in normal status, or what differs."""
    values: dict[str, Any] = {
        "process": "RUNNING",
        "pid": 1,
        "port_open": True,
        "newest_view": 4,
        "log": ReplicaLog(status="normal", view=4, is_primary=index == 1),
        "pong": Pong(index, 4, "0.17.9", 0.2),
    }
    return ReplicaHealth(replica=REPLICAS.replicas[index], **(values | changes))


DEAF = ReplicaLog(status="normal", view=4, heartbeat_lost_at=100.0)
COMMITS, SILENT = Canary(True, "committed and read back", 1, 1), Canary(False, "no commit in 15 s")


@pytest.mark.parametrize(
    ("broken", "canary", "verdict"),
    [
        ({}, COMMITS, "healthy"),
        ({}, None, "healthy"),
        ({}, SILENT, "down"),  # commits decide, whatever the replicas say
        ({2: {"process": "FATAL", "port_open": False, "pong": None}}, COMMITS, "degraded"),
        ({2: {"pong": None}}, COMMITS, "degraded"),
        ({2: {"pong": Pong(2, 3, "0.17.9", 0.2)}}, COMMITS, "degraded"),  # left in an old view
        ({2: {"log": ReplicaLog(status="view_change", view=5)}}, COMMITS, "degraded"),
        ({2: {"log": DEAF, "seen_at": 111.0}}, COMMITS, "degraded"),
        ({2: {"log": DEAF, "seen_at": 160.0}}, COMMITS, "healthy"),  # long ago: it hears again
        ({2: {"pong": None}}, None, "degraded"),
        ({1: {"pong": None}}, None, "down"),  # the primary
        ({0: {"pong": None}, 2: {"pong": None}}, None, "down"),  # no majority
    ],
)
def test_a_verdict_follows_from_what_is_seen(
    broken: dict[int, dict[str, Any]], canary: Canary | None, verdict: str
) -> None:
    replicas = [seen(i, **broken.get(i, {})) for i in range(3)]
    assert status.judge(replicas, canary)[0] == verdict


REFUSED = {"process": "REFUSED BY SSH", "pid": 0, "log": ReplicaLog()}
CLOSED = REFUSED | {"port_open": False, "pong": None}


@pytest.mark.parametrize(
    ("refused", "canary", "verdict"),
    [
        ({2: REFUSED}, COMMITS, "degraded"),
        ({2: CLOSED}, COMMITS, "degraded"),
        ({1: CLOSED, 2: CLOSED}, SILENT, "unknown"),  # no tunnel, so no canary could get there
        ({1: REFUSED, 2: REFUSED}, SILENT, "down"),  # it was reached, and commits nothing
        ({1: REFUSED, 2: REFUSED}, None, "unknown"),
    ],
)
def test_a_server_that_refuses_ssh_is_no_reason_to_call_a_cluster_down(
    refused: dict[int, dict[str, Any]], canary: Canary | None, verdict: str
) -> None:
    replicas = [seen(i, **refused.get(i, {})) for i in range(3)]
    found, reason = status.judge(replicas, canary)
    assert found == verdict
    if verdict != "down":
        assert "replica 2 refused by SSH: wait a minute" in reason
        assert "make " not in reason


@pytest.mark.parametrize(("normal", "verdict"), [(3, "down"), (4, "degraded"), (6, "healthy")])
def test_three_of_six_are_no_majority_and_four_are(normal: int, verdict: str) -> None:
    replicas = [seen(i, **({} if i < normal else {"pong": None})) for i in range(6)]
    assert status.judge(replicas, None)[0] == verdict


def looks(monkeypatch: pytest.MonkeyPatch, *found: list[ReplicaHealth]) -> None:
    """Let each look at the replicas show the next of these."""
    left = iter(found)
    monkeypatch.setattr(health, "of_replicas", lambda *_: next(left))


STARTING = [seen(0), seen(1, port_open=False, pong=None), seen(2)]
NORMAL = [seen(0), seen(1), seen(2)]


def test_a_look_that_outlives_the_bound_is_followed_by_one_that_decides(
    deployed: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(monkeypatch, STARTING, NORMAL)
    assert health.wait(deployed.deployment, timeout_s=0) == NORMAL


def test_who_is_not_normal_when_the_bound_is_reached_is_named_with_its_log(
    deployed: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(monkeypatch, STARTING, STARTING)
    with pytest.raises(
        health.Unhealthy, match=r"replica 1 starting, .*\n  last lines of .*replica-1"
    ):
        health.wait(deployed.deployment, timeout_s=0)


CHANGING = [seen(0, pong=None), seen(1, log=ReplicaLog(status="view_change")), seen(2)]
EXITED = [seen(0), seen(1, process="EXITED", port_open=False, pong=None), seen(2)]


@pytest.mark.parametrize(
    ("looks", "beside", "last"),
    [
        ([CHANGING, CHANGING, NORMAL], None, NORMAL),
        ([[seen(0), seen(1, process="STARTING", port_open=False), seen(2)], NORMAL], None, NORMAL),
        ([EXITED], None, EXITED),  # it does not come back by itself
        ([STARTING], 1, STARTING),
        ([CHANGING, STARTING], 1, STARTING),
    ],
)
def test_a_passing_state_of_replicas_that_run_is_waited_out(
    looks: list[list[ReplicaHealth]],
    beside: int | None,
    last: list[ReplicaHealth],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    left = iter(looks)
    assert health.settled(lambda: next(left), beside=beside) is last
    assert next(left, None) is None


def test_a_state_that_does_not_pass_is_told_as_it_was_seen_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "SETTLE_TIMEOUT_S", 0.0)
    assert health.settled(lambda: CHANGING) is CHANGING


def test_a_replica_whose_port_is_closed_is_down_not_wedged() -> None:
    assert not seen(0, port_open=False, pong=None).wedged_because
    assert not seen(0, process="EXITED", port_open=False, pong=None).wedged_because
    assert seen(0, pong=None).wedged_because


def test_a_ping_is_answered_with_view_and_release(deployed: Sandbox) -> None:
    cluster = deployed.deployment.cluster
    pong = ping.ask(cluster.replicas[0], cluster.id)
    assert pong is not None
    assert pong.release == cluster.release and pong.view > 0


def test_a_ping_for_another_cluster_is_not_answered(deployed: Sandbox) -> None:
    cluster = deployed.deployment.cluster
    assert ping.ask(cluster.replicas[0], cluster.id + 1, 1.0) is None


def test_a_port_that_talks_nonsense_gives_no_pong(deployed: Sandbox) -> None:
    assert ping.answer.__doc__
    with pytest.raises(Exception, match="checksum"):
        ping.answer(b"HTTP/1.1 400 Bad Request\r\n".ljust(256, b"\0"), 0, 1.0)


@pytest.mark.genuine
@pytest.mark.long
def test_a_genuine_replica_that_is_stopped_is_wedged_and_degrades_the_cluster() -> None:
    with sandbox("inventories/process.py") as made:
        up = made.up()
        assert up.returncode == 0, up.stderr[-2000:]
        assert asked(made)[0] == HEALTHY
        pongs = [ping.ask(r, 0) for r in made.deployment.cluster.replicas]
        assert [p and p.replica for p in pongs] == [0, 1, 2]
        assert len({p.view for p in pongs if p}) == 1
        victim = (pongs[0].view + 1) % 3 if pongs[0] else 0  # a backup
        with stopped(made.pids()[victim]):
            assert health.port_answers(made.deployment.cluster.replicas[victim])
            code, found = asked(made)
        assert (code, found["reason"]) == (DEGRADED, f"replica {victim} wedged")
