"""Backup, restore and backup-verify by the commands a user types, on each engine."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Sandbox, kill_below, sandbox
from tests.operate.ledger import acknowledged, await_count, await_one_after, ledger
from tests.resilience.world import ZONES

#: Bytes of each of a superblock's four copies.
SUPERBLOCK_COPY = 24 << 10
#: Operations of two checkpoints: the first blocks of the grid are in use.
CHECKPOINT_OPS = 2000
ENGINES = [
    pytest.param("inventories/emulator.py", id="emulator"),
    pytest.param(
        "inventories/process.py", id="genuine", marks=[pytest.mark.genuine, pytest.mark.long]
    ),
]


def make(made: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return made.run("make", *arguments)


def restore(made: Sandbox, taken: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`make restore`, within this process."""
    with made.having(**environ):
        return made.call("restore", f"--from={taken}")


def backup(made: Sandbox, *arguments: str) -> Path:
    """Take one; its directory."""
    done = make(made, "backup", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return newest(made)


def newest(made: Sandbox) -> Path:
    return sorted(backups(made).glob("*Z"))[-1]


def backups(made: Sandbox) -> Path:
    return Path(made.environ["BACKUP_DIR"]) / Path(made.inventory).stem


def manifest(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("inventory", ENGINES)
def test_what_is_restored_after_everything_was_destroyed_equals_the_state_at_the_backup(
    inventory: str, tmp_path: Path
) -> None:
    with sandbox(inventory, BACKUP_DIR=str(tmp_path)) as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 5000)
        before = ledger(made).read(6000)
        assert len(before["transfers"]) == 5000
        taken = backup(made, "KEEP=2")
        assert [p.stat().st_mode & 0o777 for p in sorted(taken.iterdir())] == [0o600] * 4
        assert taken.stat().st_mode & 0o777 == 0o700
        assert made.call("status").returncode == 0  # it runs again
        ledger(made).write(5001, 1000)  # what the restore will take back
        assert ledger(made).read(6000) != before

        refused = restore(made, taken, CONFIRM="yes")
        assert refused.returncode == 2
        assert "expected a stopped cluster, found a replica that runs" in refused.stderr

        assert made.down().returncode == 0
        unconfirmed = restore(made, taken)
        assert unconfirmed.returncode == 2
        assert "CONFIRM: expected yes" in unconfirmed.stderr

        shutil.rmtree(made.state_dir)
        refused = made.up()  # never an empty ledger in its place
        assert refused.returncode == 1
        assert f"though it has existed: backup {taken}" in refused.stderr
        assert not made.data_file(0).exists()
        (typed,) = re.findall("`(make restore [^`]*)`", refused.stderr)
        restored = made.run(*shlex.split(typed), "CONFIRM=yes")
        assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-3000:]
        assert "everything acknowledged after" in restored.stdout
        assert "Restart every client" in restored.stdout
        assert ledger(made).read(6000) == before
        ledger(made).write(5001, 10)  # and it goes on from there


@pytest.mark.long
@pytest.mark.parametrize("inventory", ENGINES)
def test_what_is_no_whole_backup_changes_nothing_and_half_a_restore_is_finished(
    inventory: str, tmp_path: Path
) -> None:
    with sandbox(inventory, BACKUP_DIR=str(tmp_path)) as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 500)
        before = ledger(made).read(600)
        taken = backup(made)
        assert made.down().returncode == 0
        assert_nothing_is_restored(made, taken, tmp_path)
        if "emulator" in inventory:
            assert_half_a_restore_is_not_started(made, taken)
            assert_what_an_earlier_restore_has_replaced_is_not_put_back(made, taken)
        assert made.up().returncode == 0
        assert ledger(made).read(600) == before


def assert_half_a_restore_is_not_started(made: Sandbox, taken: Path) -> None:
    """As if the machine had lost its power between the renames of replica 0 and replica 1."""
    there = made.data_file(0)
    shutil.copy(there, f"{there}.replaced")
    refused = made.up()
    assert refused.returncode == 1
    assert "data files: expected all of one moment" in refused.stderr
    assert made.call("status").returncode == 3
    restored = restore(made, taken, CONFIRM="yes")
    assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-3000:]
    assert "cut off between its renames; putting the old files back" in restored.stdout
    assert [path.name for path in there.parent.glob("*.tigerbeetle*")] == [there.name]
    assert made.down().returncode == 0


def assert_what_an_earlier_restore_has_replaced_is_not_put_back(made: Sandbox, taken: Path) -> None:
    """As if the machine had lost its power behind the renames, and the cluster was used since."""
    replaced = [Path(f"{made.data_file(index)}.replaced") for index in range(3)]
    for file in replaced:
        file.write_text("what was there before that restore")
    there = [digest(made.data_file(index)) for index in range(3)]
    refused = restore(made, taken, CONFIRM="yes")
    assert refused.returncode == 1
    assert "found what an interrupted restore has replaced. Fix: remove it" in refused.stderr
    assert [digest(made.data_file(index)) for index in range(3)] == there
    for file in replaced:
        file.write_bytes(b"")  # on new disks there was none
    restored = restore(made, taken, CONFIRM="yes")
    assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-3000:]
    assert not any(file.exists() for file in replaced)
    assert made.down().returncode == 0


def assert_nothing_is_restored(made: Sandbox, taken: Path, tmp_path: Path) -> None:
    """From what is no whole backup, or another cluster's, or does not commit."""
    there = [digest(made.data_file(i)) for i in range(3)]
    damaged = tmp_path / "damaged"
    shutil.copytree(taken, damaged)
    flip_a_byte(next(damaged.glob("replica-0.*")))
    refused = restore(made, damaged, CONFIRM="yes")
    assert refused.returncode == 2
    assert "damaged, or of another backup" in refused.stderr
    flipped = made.call("backup-verify", f"--from={damaged}")
    assert flipped.returncode == 1
    assert "replica-0" in flipped.stderr
    assert "backup: failed" in flipped.stdout

    foreign = restore(made, taken, CONFIRM="yes", LU_CFG_TIGERBEETLE_CLUSTER_ID="7")
    assert foreign.returncode == 2
    assert "expected a backup of cluster 7" in foreign.stderr

    later = "0.17.10"  # the deploy's checks refuse it
    done = restore(made, taken, CONFIRM="yes", LU_CFG_TIGERBEETLE_RELEASE=later)
    assert done.returncode == 2
    assert "Fix: " in done.stderr
    assert [digest(made.data_file(i)) for i in range(3)] == there
    assert len(list(made.data_file(0).parent.glob("*.tigerbeetle*"))) == 1


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flip_a_byte(path: Path) -> None:
    middle = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(middle)
        (byte,) = file.read(1)
        file.seek(middle)
        file.write(bytes([byte ^ 1]))


@pytest.mark.genuine
@pytest.mark.long
def test_a_backup_under_load_has_every_transfer_acknowledged_before_the_stop(
    tmp_path: Path,
) -> None:
    log = tmp_path / "acknowledged"
    with sandbox("inventories/process.py", BACKUP_DIR=str(tmp_path / "backups")) as made:
        assert made.up().returncode == 0
        with ledger(made).streaming(1, log):
            taken = backup(made)
            await_one_after(time.time(), log)
        streamed = acknowledged(log)
        kill_below(made.state_dir)
        shutil.rmtree(made.state_dir)
        verified = make(made, "backup-verify")  # with the memory that the others have left
        assert verified.returncode == 0, verified.stdout[-3000:] + verified.stderr[-3000:]
        restored = restore(made, taken, CONFIRM="yes")
        assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-3000:]
        found = [t[0] for t in ledger(made).read(streamed[-1][0])["transfers"]]
    stopped = datetime.fromisoformat(manifest(taken)["taken_at"]).timestamp()
    before = [number for number, at in streamed if at <= stopped]
    assert before, "the load ran before the stop"
    assert found[: len(before)] == before
    assert found == [number for number, _ in streamed][: len(found)]  # without a hole
    assert len(found) < len(streamed), "the load went on after the backup"


def superblock_copy(path: Path, copy: int) -> bytes:
    with path.open("rb") as file:
        file.seek(copy * SUPERBLOCK_COPY)
        return file.read(SUPERBLOCK_COPY)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.genuine
@pytest.mark.long
def test_verify_forgives_what_a_start_repairs_and_finds_what_it_does_not(tmp_path: Path) -> None:
    with sandbox("inventories/process.py", BACKUP_DIR=str(tmp_path / "backups")) as made:
        assert made.up().returncode == 0
        assert made.down().returncode == 0
        older = superblock_copy(made.data_file(1), 3)
        assert made.up().returncode == 0
        log = tmp_path / "acknowledged"
        with ledger(made).streaming(1, log):
            await_count(CHECKPOINT_OPS, log)
        assert made.down().returncode == 0

        # As after a stop in the middle of a superblock's write: three copies new, one old.
        assert superblock_copy(made.data_file(1), 3) != older
        overwrite(made.data_file(1), 3 * SUPERBLOCK_COPY, older)
        backup(made)
        repaired = make(made, "backup-verify")
        assert repaired.returncode == 0, repaired.stdout[-3000:] + repaired.stderr[-3000:]
        assert "replica 1's data file: its superblock was being written" in repaired.stdout
        assert superblock_copy(made.data_file(1), 3) == older  # only the scratch was repaired

        # A disk that has lost what nobody reads at a start. The sums are of what was packed.
        offset, size = ZONES["grid"]
        room = made.data_file(2).stat().st_size - offset
        overwrite(made.data_file(2), offset, random.Random(7).randbytes(min(size, room)))
        backup(made)
        damaged = make(made, "backup-verify")
        assert damaged.returncode == 2  # make's own code for a failed command
        assert "replica 2's data file: `inspect integrity`" in damaged.stderr
        assert "backup: failed" in damaged.stdout
