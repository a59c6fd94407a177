"""A recovery, or an upgrade, that is interrupted: repeating it ends it, and nothing is lost.

With genuine servers: only replicas recover from one another, and move to another release.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox, sandbox
from tests.deploy.releases import NEW, OLD, both_or_skip, install_client_or_skip, last_said
from tests.operate.interruption import (
    INT,
    KILL,
    ROW,
    TERM,
    assert_runs_or_says_so,
    interrupted,
    matrix,
    python,
    running,
)
from tests.operate.ledger import ledger

pytestmark = [pytest.mark.genuine, pytest.mark.long]

#: Command → what it says when a step begins.
RECOVER = {
    "recover": [
        "| Look at the data file",
        "| Stop replica 1",
        "| Recover the data file",
        "| Put it in its place",
        "| Start replica 1",
        "| Wait until replica 1 has caught up",
    ]
}
UPGRADE = {
    "upgrade": [
        "new settings: replica 0",
        "new settings: replica 2",
        "backup on 0.",  # all have the new program, and wait for the switch
    ]
}
HOW = [(INT, 1), (TERM, 1), (KILL, 1)]
RECOVERING = python("recover", "--replica=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sandbox]:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 500)
        yield made


def lose(made: Sandbox, index: int) -> None:
    """Stop a replica, and remove its data file."""
    made.supervise("stop", f"replica-{index}")
    made.data_file(index).unlink()


def await_health(made: Sandbox) -> None:
    """A replica that runs again may have to copy its state first."""

    def observe() -> tuple[bool, str]:
        done = made.call("status")
        return done.returncode == 0, done.stdout

    wait_until(observe, what="a healthy cluster", timeout_s=600, interval_s=1)


@pytest.mark.parametrize(ROW, matrix(RECOVER, (), HOW))
def test_an_interrupted_recovery_is_finished_by_what_its_last_line_names(
    cluster: Sandbox, command: str, step: str, number: signal.Signals, times: int
) -> None:
    before = ledger(cluster).read(600)
    others = [cluster.data_file(index).stat().st_ino for index in (0, 2)]
    lose(cluster, 1)
    code, said = interrupted(cluster, RECOVERING, step, number, times)
    if number != KILL:
        assert_runs_or_says_so(cluster, code, said, running(cluster))
    elif not cluster.data_file(1).exists():
        refused = cluster.run("make", "up")  # a file that was lost is never formatted
        assert refused.returncode != 0
        assert "make recover" in refused.stderr, refused.stderr[-3000:]
        assert cluster.run(*RECOVERING).returncode == 0
    else:
        assert cluster.run("make", "up").returncode == 0
    await_health(cluster)
    assert [cluster.data_file(index).stat().st_ino for index in (0, 2)] == others
    left = {path.name for path in cluster.data_file(1).parent.glob("*.tigerbeetle*")}
    assert cluster.data_file(1).name in left
    assert ledger(cluster).read(600) == before
    cluster.supervise("stop", "replica-2")  # nothing commits now without the recovered replica
    try:
        assert ledger(cluster).read(600) == before
    finally:
        cluster.supervise("start", "replica-2")
        await_health(cluster)


@pytest.mark.parametrize(ROW, matrix(UPGRADE, (), HOW))
def test_an_interrupted_upgrade_is_finished_by_repeating_it(
    tmp_path: Path, command: str, step: str, number: signal.Signals, times: int
) -> None:
    old, new = both_or_skip()
    client = install_client_or_skip(old, tmp_path / "client")
    with sandbox(
        "inventories/process.py",
        TIGERBEETLE_BIN=OLD,
        LU_CFG_TIGERBEETLE_RELEASE=old,
        PYTHONPATH=str(client),
        CONFIRM="yes",
    ) as made:
        assert made.up().returncode == 0
        there = ledger(made, str(client))
        there.write(1, 100)
        before = there.read(200)
        with made.having(TIGERBEETLE_BIN=NEW):
            code, said = interrupted(made, python(command, new), step, number, times)
            if number != KILL:
                assert_runs_or_says_so(made, code, said, running(made))
            assert there.read(200) == before
            if code != 0:
                done = made.run(*python(command, new))
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        logs = [(made.state_dir / f"replica-{i}" / "replica.log").read_text() for i in range(3)]
        assert [last_said(log) for log in logs] == [new] * 3
        assert there.read(200) == before
