"""``make logs`` with a server away: the logs of the living, and a line for the one that is not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.cli import main
from cluster.config import inventory, servers
from cluster.config.deployment import ON_SERVERS, Deployment
from cluster.config.servers import Server
from cluster.health import health
from cluster.runtimes import of, ssh

HOSTS = ("10.1.0.11", "10.1.0.12", "10.1.0.13")
AWAY = HOSTS[1]
WHY = f"{AWAY}: expected to log in over SSH, found: timed out. Fix: check the server"


@pytest.fixture(params=ON_SERVERS)
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """Replicas on servers; the second's is away."""
    settings = {"env_file": "x", "runtime": request.param}
    found = Deployment(
        name="mine",
        engine="tigerbeetle",
        runtime=request.param,
        cluster=config.load(environ={}),
        state_dir=tmp_path,
        servers=tuple(
            Server.of({"replica": index, "ssh_hostname": host}) for index, host in enumerate(HOSTS)
        ),
        settings=servers.Settings.model_validate(settings),
    )
    monkeypatch.setattr(inventory, "read", lambda _: found)

    def run(server: Server, script: str, *_: object) -> subprocess.CompletedProcess[str]:
        if server.hostname == AWAY:
            raise ssh.SshError(WHY)
        return subprocess.CompletedProcess([], 0, f"a line of {server.hostname}\n", "")

    monkeypatch.setattr(ssh, "run", run)
    return found


def test_the_logs_of_the_living_are_printed_and_last_which_is_missing_and_why(
    cluster: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "--inventory", "mine"]) == 1
    printed, told = capsys.readouterr()
    assert printed == f"replica-0 | a line of {HOSTS[0]}\nreplica-2 | a line of {HOSTS[2]}\n"
    assert told == f"replica 1: its log was not read: {WHY}\n"
    assert "no log yet" not in told


@pytest.mark.parametrize(("replica", "code"), [("0", 0), ("1", 1)])
def test_one_replica_s_log_is_its_own_server_s_alone(
    cluster: Deployment, capsys: pytest.CaptureFixture[str], replica: str, code: int
) -> None:
    assert main(["logs", "--inventory", "mine", "--replica", replica]) == code
    assert (WHY in capsys.readouterr().err) == bool(code)


def test_who_waits_for_a_replica_is_told_that_its_log_could_not_be_read(
    cluster: Deployment,
) -> None:
    from tests.unit.test_recover import replica

    said = health._with_log_tails(cluster, "it did not start", [replica(1, "UNREACHABLE")])
    assert said.splitlines()[-1].strip() == WHY


@pytest.fixture
def as_ssh(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Log in by this shell line, in which ``$0`` is the server's name."""

    def log_in(script: str) -> None:
        monkeypatch.setattr(ssh, "_failed", {})
        monkeypatch.setattr(
            ssh, "command", lambda server, *_: ["sh", "-c", script, server.hostname]
        )

    return log_in


def test_the_living_are_followed_and_who_is_away_is_told_of(
    cluster: Deployment, capfd: pytest.CaptureFixture[str], as_ssh: Any
) -> None:
    as_ssh(f'test "$0" != {AWAY} || {{ echo "timed out" >&2; exit 255; }}; echo "log of $0"')
    assert of(cluster).follow([0, 1, 2], 40) == 1
    printed, told = capfd.readouterr()
    assert sorted(printed.splitlines()) == [f"log of {HOSTS[0]}", f"log of {HOSTS[2]}"]
    assert told.startswith("replica 1: its log is not followed: 10.1.0.12: ")
    assert "replica 0" not in told


def test_following_ends_with_a_line_for_the_server_that_goes_away(
    cluster: Deployment, capfd: pytest.CaptureFixture[str], as_ssh: Any, tmp_path: Path
) -> None:
    has_let_in = f"test -e {tmp_path}/let-in-$0 || {{ touch {tmp_path}/let-in-$0; exit 0; }}"
    as_ssh(f'{has_let_in}; test "$0" != {AWAY} || exit 255; echo "log of $0"')
    assert of(cluster).follow([0, 1, 2], 40) == 1
    printed, told = capfd.readouterr()
    assert sorted(printed.splitlines()) == [f"log of {HOSTS[0]}", f"log of {HOSTS[2]}"]
    assert "replica 1: its log ends here, since its server 10.1.0.12 does not answer" in told
    assert "replica 0" not in told
    assert "Fix: make status" in told


def test_following_all_to_their_end_is_well(
    cluster: Deployment, capfd: pytest.CaptureFixture[str], as_ssh: Any
) -> None:
    as_ssh("true")
    assert of(cluster).follow([0, 1, 2], 40) == 0
    assert capfd.readouterr().err == ""
