"""Backup-verify by a recorded run: what was acknowledged before the backup must be in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from cluster.config import inventory
from cluster.tigerbeetle.waiting import wait_until
from loadtests.run import history
from loadtests.run.history import Operation
from tests.clusters import Sandbox, sandbox
from tests.operate import repositories
from tests.operate.forged import AMOUNT, LEDGER, forge, rewrite, send_away
from tests.operate.repositories import needs_restic

pytestmark = pytest.mark.long

ENGINES = [
    pytest.param("inventories/emulator.py", id="emulator"),
    pytest.param("inventories/process.py", id="genuine", marks=pytest.mark.genuine),
]
#: The runs end when they are told to.
ENDLESS_S = 3600
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Place:
    """A cluster under load, and two backups: one before the load, one in the middle of it."""

    made: Sandbox
    before: Path
    during: Path
    #: The runs' names, by their kind.
    runs: dict[str, str]

    def verify(self, taken: Path, run: str) -> subprocess.CompletedProcess[str]:
        return self.made.call("backup-verify", f"--from={taken}", f"--run={run}")

    def refused_or_failed(self, taken: Path, run: str, code: int) -> str:
        """The one line that says why."""
        done = self.verify(taken, run)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        (line,) = done.stderr.splitlines()
        return line

    @property
    def operations(self) -> tuple[Operation, ...]:
        return history.read(Path(self.made.overrides["LOADTESTS_RUNS"]) / "recorded").operations


@contextmanager
def running(made: Sandbox, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of the load; at the end it is told to stop, and waited for."""
    command = [sys.executable, "-m", "cluster", *words]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=made.environ,
            stdout=said,
            stderr=said,
            start_new_session=True,  # so that Ctrl-C reaches all of it, as at a terminal
        )
    try:
        yield process
        os.killpg(process.pid, signal.SIGINT)
        process.wait(_TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def await_growth(file: Path, size: int) -> None:
    """Wait until so many bytes more are in a file that a run writes."""
    before = file.stat().st_size if file.exists() else 0
    wait_until(
        lambda: (
            (found := file.stat().st_size if file.exists() else 0) >= before + size,
            f"{found - before} bytes more",
        ),
        what=f"{file.name} to grow",
        timeout_s=_TIMEOUT_S,
    )


def backup(made: Sandbox) -> Path:
    done = made.run("make", "backup")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    root = Path(made.overrides["BACKUP_DIR"]) / Path(made.inventory).stem
    return sorted(root.glob("*Z"))[-1]


@pytest.fixture(scope="module", params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("proof")
    where = {"BACKUP_DIR": str(directory / "backups"), "LOADTESTS_RUNS": str(directory / "runs")}
    with sandbox(request.param, **where) as made:
        assert made.up().returncode == 0
        before = backup(made)
        time.sleep(1.1)  # a backup is called after its second
        runs = directory / "runs"
        load = ("--users=5", f"--run-time={ENDLESS_S}", "--wallets=20", "--think-s=0.02")
        with ExitStack() as until_the_end:
            enter = until_the_end.enter_context
            log = directory / "load.log"
            enter(running(made, log, "load", *load))
            recording = ("workload", f"--run-time={ENDLESS_S}", "--run-id=recorded")
            enter(running(made, directory / "workload.log", *recording))
            # Each answer is a line of a history; of load there is a line a second.
            growing = {runs / "recorded" / history.FILE: 50_000, log: 500}
            for file, size in growing.items():
                await_growth(file, size)
            during = backup(made)
            for file, size in growing.items():
                await_growth(file, size // 2)
        assert made.down().returncode == 0  # with the memory that the others have left
        (loaded,) = runs.glob("*/run.json")
        yield Place(made, before, during, {"load": loaded.parent.name, "workload": "recorded"})


def taken_at(directory: Path) -> float:
    said = re.search(r'"taken_at":\s*"([^"]+)"', (directory / "manifest.json").read_text())
    assert said
    return datetime.fromisoformat(said[1]).timestamp()


def told_before(place: Place) -> list[Operation]:
    """Deposits that were answered before the backup, by the recorder's own instants.

    Its clock is the monotonic one: what it shares with the backup's is this machine.
    """
    to_unix = time.time() - time.monotonic()
    stopped = taken_at(place.during) - to_unix
    return [
        one
        for one in place.operations
        if one.action == "deposit" and one.completed and one.statuses == ("created",)
        if one.completed / 1e9 < stopped - 0.5
    ]


@pytest.mark.parametrize("kind", ["workload", "load"])
def test_what_was_acknowledged_before_a_backup_under_load_is_in_it(place: Place, kind: str) -> None:
    run = place.runs[kind]
    done = place.verify(place.during, run)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    found = re.search(rf"run {run}: ([\d,]+) transfers were answered before ", said)
    assert found
    count = int(found[1].replace(",", ""))
    assert count > 20
    if kind == "workload":
        early = {one.id for op in told_before(place) for one in op.transfers}
        assert len(early) < count
    proven = re.search(r"passed +acknowledged: ([\d,]+) acknowledged transfers are in", said)
    assert proven
    assert re.search(r"time to restore \(RTO\): [\d.,]+ s on this machine", said)
    assert re.search(r"newest transfer in it \(RPO\): \d+:\d\d:\d\d old, of ", said)


def test_a_backup_from_before_the_run_is_refused(place: Place) -> None:
    for run in place.runs.values():
        line = place.refused_or_failed(place.before, run, 2)
        assert line.startswith("error: RUN: expected one with answers from before the backup was")
        assert f"found {run}, begun at " in line


def called_newer(place: Place, target: Path) -> str:
    """The older backup, which says of itself that it is of the middle of the run."""
    shutil.copytree(place.before, target)
    at = datetime.fromtimestamp(taken_at(place.during), UTC).isoformat()
    rewrite(target, lambda manifest: manifest.update({"taken_at": at, "name": target.name}))
    return " acknowledged, but not in the ledger: transfer 0x"


def without_one(place: Place, target: Path) -> str:
    """One transfer was refused there, which had been acknowledged here."""
    transfer = told_before(place)[-1].transfers[0]
    forge(place.during, target, transfer.id, LEDGER, 9999)
    return f" acknowledged, but not in the ledger: transfer {hex(transfer.id)}"


def with_another_amount(place: Place, target: Path) -> str:
    """One transfer has another amount."""
    transfer = told_before(place)[-1].transfers[0]
    forge(place.during, target, transfer.id, AMOUNT, transfer.amount + 1)
    return f" stored with other fields: transfer {hex(transfer.id)}: amount sent "


@pytest.mark.parametrize("is_far", [False, pytest.param(True, marks=needs_restic)], ids=str)
@pytest.mark.parametrize(
    "broken", [called_newer, without_one, with_another_amount], ids=lambda one: one.__name__
)
def test_a_whole_backup_of_another_ledger_fails_in_one_line(
    place: Place, broken: Callable[[Place, Path], str], tmp_path: Path, *, is_far: bool
) -> None:
    """Nobody else sees it: each byte is what was written, and debits equal credits."""
    if "emulator" not in place.made.inventory:
        pytest.skip("only the emulator's journal can be forged")
    target = tmp_path / place.during.name
    told = broken(place, target)
    where = {"BACKUP_DIR": str(tmp_path / "kept")}
    if is_far:
        password = str(repositories.password_file(tmp_path))
        where |= {"BACKUP_TO": str(tmp_path / "far"), "BACKUP_PASSWORD_FILE": password}
    with place.made.having(**where):
        if is_far:
            assert place.made.call("backup-init").returncode == 0
            with place.made.entered():
                target = Path(send_away(target, inventory.read(place.made.inventory)))
        without = place.made.call("backup-verify", f"--from={target}")
        assert without.returncode == 0, without.stdout[-3000:] + without.stderr[-3000:]
        line = place.refused_or_failed(target, "recorded", 1)
    assert line.startswith("  run recorded: acknowledged: ")
    assert told in line


@pytest.mark.parametrize(
    ("run", "told"), [("nowhere", "expected an id such as "), ("../..", "expected an id such as ")]
)
def test_what_is_no_run_is_refused(place: Place, run: str, told: str) -> None:
    line = place.refused_or_failed(place.during, run, 2)
    assert line.startswith("error: run: ")
    assert told in line
