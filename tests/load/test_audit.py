"""The audit as a program: broken ledgers and broken records of real runs are convicted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tigerbeetle_emulator
from loadtests.client.external import Sorter
from loadtests.client.records import CREATED, RECORD, TRANSFER
from loadtests.proof.audit import audit
from loadtests.run.result import Audit
from tests.load.conftest import CLUSTER_ID, Program, Server


def failed(found: Audit) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.verdict == "failed"}


@pytest.mark.long
def test_a_record_missing_one_worker_is_told_with_what_to_copy(copied: Path) -> None:
    (copied / "record-1.bin").unlink()
    found = audit(copied)
    assert found.verdict == "unknown"  # what worker 1 sent is in the ledger and in no record
    assert "copy the record-*.bin" in found.checks[0].detail
    assert failed(found) == {}
    undecided = {check.name for check in found.checks if "without the whole" in check.detail}
    assert {"nothing else", "balances"} <= undecided


def test_what_is_lost_is_lost_though_the_record_is_not_whole(copied: Path) -> None:
    (copied / "record-1.bin").unlink()
    with (copied / "record-0.bin").open("r+b") as file:  # it acknowledges what was never stored
        line = np.frombuffer(file.read(RECORD.itemsize), RECORD).copy()
        line["sent"]["id"][0, 0] += 1 << 40
        line["result"]["timestamp"] += 1
        file.seek(0)
        file.write(line.tobytes())
    assert "acknowledged" in failed(audit(copied))


def test_a_run_without_a_result_is_never_passed(copied: Path) -> None:
    (copied / "result.json").unlink()
    assert audit(copied).verdict == "unknown"


def test_a_torn_record_is_never_passed(copied: Path) -> None:
    with (copied / "record-0.bin").open("ab") as file:
        file.write(b"x")
    assert audit(copied).verdict == "unknown"


def alter_amount(row: bytes) -> bytes:
    return row[:48] + (int.from_bytes(row[48:64], "little") + 1).to_bytes(16, "little") + row[64:]


def alter_owner(row: bytes) -> bytes:
    return row[:16] + row[32:48] + row[16:32] + row[48:]


@pytest.fixture(scope="module")
def buried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose server is gone: the run's directory, and the server's data file."""
    own = Server(tmp_path_factory.mktemp("buried"))
    own.format()
    own.start()
    program = Program(own.directory / "runs")
    try:
        assert program.load(own, seconds=2).returncode == 0
    finally:
        own.kill()
    return program.newest, own.data_file


@pytest.mark.parametrize("tamper", [alter_amount, alter_owner], ids=lambda f: f.__name__)
def test_an_emulator_whose_ledger_was_tampered_with_is_convicted(
    buried: tuple[Path, Path], tmp_path: Path, tamper: Callable[[bytes], bytes]
) -> None:
    run, data_file = dug_up(buried, tmp_path)
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, path=data_file) as broken:
        records = broken.replica.ledger.records
        middle = len(records) // TRANSFER.itemsize // 2 * TRANSFER.itemsize
        row = bytes(records[middle : middle + TRANSFER.itemsize])
        number = int.from_bytes(row[:16], "little")
        records[middle : middle + TRANSFER.itemsize] = tamper(row)
        redirect(run, broken.address)
        found = audit(run)
    assert found.verdict == "failed"
    assert hex(number) in failed(found)["acknowledged"]


def test_an_emulator_that_lost_the_tail_of_its_journal_is_convicted(
    buried: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data_file = dug_up(buried, tmp_path)
    os.truncate(data_file, data_file.stat().st_size * 3 // 4)
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, path=data_file) as broken:
        redirect(run, broken.address)
        found = audit(run)
    assert found.verdict == "failed"
    assert "not in the ledger: transfer 0x" in failed(found)["acknowledged"]


def dug_up(buried: tuple[Path, Path], directory: Path) -> tuple[Path, Path]:
    """Copies of both, to be tampered with."""
    run, data_file = buried
    copy = Path(shutil.copytree(run, directory / run.name))
    return copy, Path(shutil.copy(data_file, directory / data_file.name))


def redirect(run: Path, address: str) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["target"]["addresses"] = address
    (run / "run.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("status", [0, 54], ids=["as unanswered", "as refused"])
def test_a_record_that_hides_an_answer_is_resolved_or_convicted(copied: Path, status: int) -> None:
    path = copied / "record-0.bin"
    lines = np.fromfile(path, RECORD)
    row = np.flatnonzero(lines["result"]["status"] == CREATED)[-1]
    lines["result"]["status"][row] = status
    low, high = (int(half) for half in lines["sent"]["id"][row])
    lines.tofile(path)
    found = audit(copied)
    if status == 0:
        assert found.verdict == "passed"
        assert found.unknown_resolved == {"committed": 1, "absent": 0}
    else:
        assert hex(high << 64 | low) in failed(found)["nothing else"]


def test_a_disk_without_room_for_what_must_be_sorted_leaves_the_verdict_open(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Sorter.__init__, "__kwdefaults__", {"run_bytes": 64, "combine": np.asarray})
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    found = audit(copied)
    assert found.verdict == "unknown"
    assert "No space left" in found.checks[-1].detail
