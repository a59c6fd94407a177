"""A backup without a stop, by the commands a user types, on a file system that can clone."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox, kill_below, sandbox
from tests.file_systems import xfs
from tests.operate import rounds
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
from tests.operate.test_backup import backup, backups, make, manifest, restore

#: What a backup says when a step begins.
STEPS = {
    "backup": [
        "way: freeze all replicas",
        "| Try to pack the data files",
        "all replicas were frozen",
        "| Pack the data files",
    ]
}
CHOSEN = {("backup", "all replicas were frozen", TERM, 2)}


@pytest.fixture(scope="module")
def cloning() -> Iterator[Path]:
    with xfs() as place:
        yield place


@pytest.fixture(scope="module")
def deployed(cloning: Path) -> Iterator[Sandbox]:
    before, tempfile.tempdir = tempfile.tempdir, str(cloning)
    with sandbox("inventories/emulator.py") as made:
        tempfile.tempdir = before
        assert made.up().returncode == 0
        ledger(made).write(1, 100)
        yield made


def beside(made: Sandbox) -> list[str]:
    """What there is beside the data files."""
    return [p.name for i in range(3) for p in made.data_file(i).parent.glob("*.tigerbeetle?*")]


def stopped(made: Sandbox) -> list[int]:
    """The replicas that stand still, by the machine's own list of processes."""
    return [p for p in made.pids() if psutil.Process(p).status() == psutil.STATUS_STOPPED]


def test_no_replica_stops_and_what_is_restored_equals_the_state_at_the_backup(
    deployed: Sandbox,
) -> None:
    made, pids = deployed, deployed.pids()
    before = ledger(made).read(200)
    done = made.call("backup")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = done.stdout
    way = "way: freeze all replicas for a moment, and clone their data files. Why: every data file"
    assert said.index(way) < said.index("all replicas were frozen for ")
    assert "no downtime: all replicas were frozen for " in said
    assert made.pids() == pids
    assert (stopped(made), beside(made)) == ([], [])
    taken = sorted(backups(made).glob("*Z"))[-1]
    written = manifest(taken)
    assert (written["way"], written["stopped_s"]) == ("freeze", None)
    assert 0 < written["frozen_s"] < 5
    assert ledger(made).read(200) == before
    ledger(made).write(101, 50)
    assert made.down().returncode == 0
    restored = restore(made, taken, CONFIRM="yes")
    assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-3000:]
    assert ledger(made).read(200) == before


def test_a_stop_is_taken_where_it_is_asked_for(deployed: Sandbox) -> None:
    pids = deployed.pids()
    said = make(deployed, "backup", "WAY=stop")
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-3000:]
    assert "way: stop all replicas until their data files are packed. Why: WAY=stop" in said.stdout
    assert set(deployed.pids()).isdisjoint(pids)
    written = manifest(sorted(backups(deployed).glob("*Z"))[-1])
    assert (written["way"], written["frozen_s"]) == ("stop", None)
    refused = deployed.call("backup", "--way=both")
    assert refused.returncode == 2
    assert "WAY: expected freeze or stop, found both" in refused.stderr


def test_where_no_file_can_be_cloned_a_freeze_is_refused_and_the_way_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whichever file system: a `cp` that says so stands in for it."""
    script = (
        "#!/bin/sh\n"
        "case $1 in --reflink*) echo 'cp: Operation not supported' >&2; exit 1;; esac\n"
        f'exec {shutil.which("cp")} "$@"\n'
    )
    (tmp_path / "cp").write_text(script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "cp").chmod(0o755)
    with sandbox("inventories/emulator.py") as made:
        assert made.up().returncode == 0
        pids = made.pids()
        refused = made.call("backup", "--way=freeze")
        assert refused.returncode == 2, refused.stderr
        assert "WAY=freeze: expected that every replica can be frozen" in refused.stderr
        assert "no file can be cloned (Operation not supported)" in refused.stderr
        assert made.pids() == pids
        assert not list(backups(made).glob("*Z*"))
        done = made.call("backup")
        assert done.returncode == 0, done.stderr[-3000:]
        assert (
            "way: stop all replicas until their data files are packed. Why: replica 0: on its"
            in (done.stdout)
        )


@pytest.mark.parametrize(ROW, matrix(STEPS, CHOSEN, [(INT, 1), (TERM, 2), (KILL, 1)]))
def test_an_interrupted_backup_leaves_all_replicas_running_and_no_clone(
    deployed: Sandbox, command: str, step: str, number: signal.Signals, times: int
) -> None:
    before, pids = ledger(deployed).read(200), deployed.pids()
    sets = sorted(backups(deployed).glob("*Z"))
    code, said = interrupted(deployed, python(command), step, number, times)
    if number == KILL:
        wait_until(
            lambda: (not (beside(deployed) or stopped(deployed)), str(beside(deployed))),
            what="neither a clone nor a stopped replica",
            timeout_s=60,
        )
    else:
        assert_runs_or_says_so(deployed, code, said, running(deployed))
    assert (stopped(deployed), beside(deployed)) == ([], [])
    assert deployed.pids() == pids
    if code != 0:
        assert sorted(backups(deployed).glob("*Z")) == sets
    assert ledger(deployed).read(200) == before
    backup(deployed, "KEEP=20")
    assert deployed.pids() == pids


@pytest.mark.genuine
@pytest.mark.long
def test_backups_in_a_row_under_load_have_every_transfer_acknowledged_before(
    cloning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(cloning))
    with sandbox("inventories/process.py", BACKUP_DIR=str(tmp_path / "backups")) as made:
        monkeypatch.setattr(tempfile, "tempdir", None)
        assert made.up().returncode == 0
        pids = made.pids()
        keep = f"KEEP={rounds.ROUNDS + 1}"

        def take(*words: str) -> Path:
            if "WAY=freeze" in words:
                assert made.pids() == pids
            return backup(made, keep, *words)

        taken, operations = rounds.take(made.environ, tmp_path / "runs", take)
        kill_below(made.state_dir)
        with made.entered():
            rounds.prove(made.deployment, taken, operations, monkeypatch)
