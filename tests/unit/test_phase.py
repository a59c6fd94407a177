"""A phase ends in a line of ours: which server, why, and what to do now."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cluster import config
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.operate import last_word, phase
from cluster.refusal import Failed, Interrupted, Refusal
from cluster.runtimes import ssh
from cluster.runtimes.base import ReplicaProcess
from cluster.runtimes.servers import REFUSED_BY_SSH, UNREACHABLE
from tests.unit.test_servers import env_text

STOP = "tasks.replica.stop"


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Three servers, none of which lets anybody in: nothing listens at port 1."""
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    env_file, file = tmp_path / "mine.env", tmp_path / "mine.py"
    env_file.write_text(env_text())
    env_file.chmod(0o600)
    file.write_text(
        "from cluster.servers import on_servers\n"
        f'hosts = on_servers("mine", env_file={str(env_file)!r}, runtime="systemd", ssh_port=1, '
        'engine="emulator", ssh_hosts=("127.0.0.1", "127.0.0.2", "127.0.0.3"), '
        'clients=["10.1.0.0/24"])\n'
    )
    return inventory.read(file)


def heard(*lines: tuple[int, str]) -> phase.Heard:
    listening = phase.Heard()
    for level, text in lines:
        listening.emit(logging.LogRecord("pyinfra", level, "", 0, text, None, None))
    return listening


BEGUN = (logging.INFO, "--> Starting run once operation: Start the replicas | Start replica 1 ")
MERE = (logging.ERROR, "\x1b[1m[tigerbeetle-1]\x1b[0m \x1b[31mError: executed 0 commands\x1b[0m")


def test_the_reason_is_the_last_that_the_host_has_said() -> None:
    said = [(logging.ERROR, f"\x1b[1m[tigerbeetle-1]\x1b[0m {line}") for line in ("no", "why")]
    reason = heard(BEGUN, *said, MERE).reason()
    assert reason == "Start replica 1: tigerbeetle-1: why; see above"


def test_a_line_with_a_fix_is_the_reason_whatever_comes_after_it() -> None:
    fix = (logging.ERROR, "[@local] error: disk: expected room, found none. Fix: make some")
    after = (logging.ERROR, "[@local] and so on")
    assert heard(BEGUN, fix, after, MERE).reason() == (
        "disk: expected room, found none. Fix: make some"
    )


def test_what_an_earlier_operation_has_said_and_what_is_only_told_is_no_reason() -> None:
    earlier = (logging.WARNING, "[tigerbeetle-0] ignored")
    told = (logging.INFO, "[tigerbeetle-0] Success")
    assert heard(earlier, BEGUN, told).reason() == "Start replica 1: failed; see above"


def test_one_reason_of_several_hosts_names_each() -> None:
    said = [(logging.ERROR, f"[tigerbeetle-{i}] full") for i in (0, 2)]
    assert "tigerbeetle-0: full; tigerbeetle-2: full" in heard(BEGUN, *said).reason()


@pytest.mark.parametrize(
    ("away", "page"),
    [
        ([2], "docs/runbooks/lost-host.md"),
        ([0, 2], "docs/runbooks/lost-majority.md"),
        ([0, 1, 2], "docs/servers.md#all-servers-are-lost"),
    ],
)
def test_a_server_that_is_away_is_named_with_why_and_what_now(
    servers: Deployment, away: list[int], page: str
) -> None:
    why: dict[int | None, str] = dict.fromkeys(away, "timed out")
    said = str(phase.away(why, servers, "deploy.py"))
    for index in away:
        assert f"replica {index}'s, 127.0.0.{index + 1}: timed out" in said
    assert said.endswith(f"if it is lost: {page}.")
    assert "AWAY" not in said


def test_a_server_that_refuses_ssh_is_not_called_lost(servers: Deployment) -> None:
    refused = str(ssh.failure(servers.servers[2], "Connection reset by peer"))
    said = str(phase.away({2: refused}, servers, "deploy.py"))
    assert said.count("Fix: ") == 1
    assert "Fix: wait a minute" in said
    assert "lost" not in said
    timed_out = str(ssh.failure(servers.servers[1], "Connection timed out"))
    both = str(phase.away({1: timed_out, 2: refused}, servers, "deploy.py"))
    assert both.count("Fix: ") == 1
    assert both.endswith("if it is lost: docs/runbooks/lost-majority.md.")


def test_a_stop_says_how_to_do_without_the_server_that_is_away(servers: Deployment) -> None:
    why: dict[int | None, str] = {0: "timed out", 2: "refused"}
    said = str(phase.away(why, servers, STOP))
    assert said.endswith(f"make down INVENTORY={servers.file} AWAY=0,2")


def test_where_none_can_be_reached_there_are_no_others_to_stop(servers: Deployment) -> None:
    assert "AWAY" not in str(phase.away(dict.fromkeys(range(3), "refused"), servers, STOP))


def test_the_monitoring_host_is_no_replica_s_server(servers: Deployment) -> None:
    said = str(phase.away({None: "refused"}, servers, "tasks.monitoring.start"))
    assert "found another: refused" in said
    assert "lost" not in said


@pytest.mark.parametrize("typed", ["3", "0,1,2", "one", "1,", "", "-1"])
def test_only_some_of_the_replicas_can_be_said_to_be_away(servers: Deployment, typed: str) -> None:
    with pytest.raises(Refusal, match="AWAY: expected some of 0, 1, 2, not all, found"):
        phase.read_away(servers, typed)


def test_those_that_are_away_are_read_in_any_order(servers: Deployment) -> None:
    assert phase.read_away(servers, "2, 0") == [0, 2]


def test_on_this_machine_no_server_can_be_away() -> None:
    with pytest.raises(Refusal, match="expected an inventory of servers"):
        phase.read_away(inventory.read("inventories/emulator.py"), "1")


def test_a_phase_that_reaches_no_server_has_changed_nothing_and_says_whose(
    servers: Deployment,
) -> None:
    with pytest.raises(phase.Refused, match=r"replica 1's, 127\.0\.0\.2: .* Fix: "):
        phase.run(servers.file, "tasks.replica.restart", quiet=True)


def test_a_phase_without_a_reason_of_its_own_points_to_what_was_said() -> None:
    with pytest.raises(Failed, match=r"tasks\.nothing\.stop: failed, see above"):
        phase.run("inventories/emulator.py", "tasks.nothing.stop", quiet=True)


RUNS = ReplicaProcess("RUNNING", 7)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({0: RUNS, 1: RUNS, 2: UNREACHABLE}, "not seen: replica 2, whose server does not answer"),
        ({0: RUNS, 2: UNREACHABLE}, "not running: replica 1; not seen: replica 2, whose server"),
        ({0: RUNS, 1: RUNS, 2: RUNS}, "no; every replica runs"),
        ({}, "no; no replica runs. Fix: make up"),
        ({0: RUNS, 1: RUNS, 2: REFUSED_BY_SSH}, "no; not seen: replica 2, whose server does not"),
    ],
)
def test_the_last_word_tells_a_replica_that_stopped_from_one_that_is_away(
    servers: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    states: dict[int, ReplicaProcess],
    told: str,
) -> None:
    monkeypatch.setattr("cluster.runtimes.systemd.Systemd.states", lambda _: states)
    with pytest.raises(Failed) as failed, last_word.said(servers):
        raise Failed("no")
    assert told in str(failed.value)


def test_what_tells_itself_how_things_are_is_given_no_second_advice(
    servers: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.runtimes.systemd.Systemd.states", lambda _: {})
    with pytest.raises(Failed) as failed, last_word.said(servers, "; all as before"):
        raise last_word.AsTold("half. Fix: this")
    assert str(failed.value) == "half. Fix: this; no replica runs"
    with pytest.raises(Interrupted) as ended, last_word.said(servers, "; all as before", fix="so"):
        raise KeyboardInterrupt
    assert str(ended.value) == "interrupted; all as before; no replica runs. Fix: so"
