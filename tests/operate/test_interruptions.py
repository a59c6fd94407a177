"""Whatever is interrupted, however often: the replicas run again, or the last line says otherwise.

Of a restore: the ledger is as it was, or as it was at the backup, and never of both moments.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clusters import Sandbox, sandbox
from tests.operate.interruption import (
    KILL,
    ROW,
    TERM,
    assert_runs_or_says_so,
    assert_status_tells,
    change_a_setting,
    interrupted,
    matrix,
    python,
    running,
)
from tests.operate.ledger import ledger

#: Command → what it says when a step begins.
STEPS = {
    "backup": [
        "reading the ledger's totals",
        "| Check the room",
        "| Note when they stop",
        "| Stop the replicas",
        "| Pack the data files",
        "| Start the replicas",
        "| Wait until the cluster commits",
    ],
    "restart": ["restart: replica 0", "restart: replica 1", "restart: replica 2"],
    "up": ["new settings: replica 0", "new settings: replica 2"],
    "down": ["| Stop the replicas"],
}
RESTORE = {
    "restore": [
        "| Unpack the data files",
        "| Replace replica 0's data file",
        "| Replace replica 1's data file",
        "| Start the replicas",
        "| Wait until the cluster commits",
        "| Accept replica 0's restored data file",
        "| Drop replica 0's replaced data file",
    ]
}
WORDS = {
    "up": ["run"],
    "down": ["run", "tasks.replica.stop"],
    "restart": ["run", "tasks.replica.restart"],
}
#: One of each kind within `make test`: the rest is the whole matrix.
CHOSEN = {("backup", "| Pack the data files", TERM, 2), ("restart", "restart: replica 0", KILL, 1)}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Sandbox]:
    with sandbox("inventories/emulator.py") as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 100)
        yield made


@pytest.fixture(scope="module")
def backed_up() -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    """A cluster, and what its backup holds of the ledger."""
    with sandbox("inventories/emulator.py") as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 100)
        assert made.call("backup").returncode == 0
        yield made, ledger(made).read(200)


@pytest.mark.parametrize(ROW, matrix(STEPS, CHOSEN))
def test_the_replicas_run_again_or_the_last_line_says_that_they_do_not(
    deployed: Sandbox, command: str, step: str, number: signal.Signals, times: int
) -> None:
    before = ledger(deployed).read(200)
    if command == "up":
        change_a_setting(deployed)
    code, said = interrupted(deployed, python(*WORDS.get(command, [command])), step, number, times)
    if number == KILL or (command, code) == ("down", 0):
        assert_status_tells(deployed)
    else:
        assert_runs_or_says_so(deployed, code, said, running(deployed))
    assert deployed.up().returncode == 0  # an interrupted rollout is finished by repeating it
    assert deployed.call("status").returncode == 0
    assert ledger(deployed).read(200) == before


@pytest.mark.parametrize(ROW, matrix(RESTORE, CHOSEN))
def test_an_interrupted_restore_leaves_the_files_of_one_moment(
    backed_up: tuple[Sandbox, dict[str, Any]],
    command: str,
    step: str,
    number: signal.Signals,
    times: int,
) -> None:
    made, at_backup = backed_up
    before = ledger(made).read(200)
    if before == at_backup:
        ledger(made).write(101, 100)
        before = ledger(made).read(200)
    assert made.down().returncode == 0
    restore = python(command, "--from=")
    with made.having(CONFIRM="yes"):
        code, said = interrupted(made, restore, step, number, times)
        if number != KILL:
            assert_runs_or_says_so(made, code, said, (), is_up=False)
        done = made.run("make", "up")
        is_mixed = number == KILL and done.returncode != 0
        if is_mixed:
            assert "Fix: make restore" in done.stderr, done.stderr[-4000:]
            done = made.run(*restore)
        assert done.returncode == 0, done.stderr[-4000:]
    assert made.call("status").returncode == 0
    found = ledger(made).read(200)
    if number == KILL and not is_mixed:
        assert found in (before, at_backup)
        for kept in made.state_dir.glob("replica-*/*.replaced"):
            kept.unlink()  # as the next restore would advise: the cluster has been used since
        return
    is_accepted = step.startswith(("| Accept", "| Drop"))  # the cluster commits with the backup's
    assert found == (at_backup if is_accepted or is_mixed or code == 0 else before), said
    if is_accepted and code != 0:
        assert "; the data files are those of the backup" in said.splitlines()[-1]
