"""What the proof of a run says of a backup: passed, convicted in one line, or refused."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster.config import inventory
from cluster.operate.backup import sets, told_of
from cluster.operate.backup.verify import Finding
from cluster.refusal import Refusal
from cluster.tigerbeetle import totals
from cluster.tigerbeetle.totals import LedgerTotals, Totals
from tests.unit.test_backup_set import made_set

ORIGINAL = inventory.read("inventories/emulator.py")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The words with which the proof is started, where it ends like this."""
    manifest = sets.read(made_set(tmp_path / "20261124T000000Z"))

    def ends(code: int, stdout: str = "", stderr: str = "") -> tuple[list[str], list[str]]:
        started: list[list[str]] = []

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            started.append(command)
            return subprocess.CompletedProcess(command, code, stdout, stderr)

        monkeypatch.setattr(subprocess, "run", run)
        found = told_of.missed(ORIGINAL, manifest, "run-1", ORIGINAL)
        return found, started[0]

    return ends


def test_a_run_that_is_proven_has_nothing_to_say(ended: Any) -> None:
    found, command = ended(0, "  passed   acknowledged: 7\nrun run-1: passed\n")
    assert found == []
    assert f"--copy={ORIGINAL.client_addresses}" in command
    assert "--run=run-1" in command
    (at,) = (word for word in command if word.startswith("--taken-at="))
    assert datetime.fromisoformat(at.partition("=")[2]).tzinfo == UTC


def test_a_conviction_is_its_last_line(ended: Any) -> None:
    last = "run run-1: acknowledged: 1 acknowledged, but not in the ledger: transfer 0x7"
    assert ended(1, f"  failed   acknowledged: …\n{last}\n")[0] == [last]


@pytest.mark.parametrize("code", [-6, 3, 134])
def test_a_proof_that_dies_convicts(ended: Any, code: int) -> None:
    """The official client aborts on what it does not understand."""
    (line,) = ended(code, "", "thread 1 panic: reached unreachable code\n")[0]
    assert (
        line == f"run run-1: the proof ended with {code}: thread 1 panic: reached unreachable code"
    )


def test_an_undecided_run_is_refused(ended: Any) -> None:
    with pytest.raises(Refusal, match="RUN: expected its whole record, found run r: cut off"):
        ended(4, "run r: cut off\n")


def test_what_the_proof_refuses_is_refused_in_its_words(ended: Any) -> None:
    with pytest.raises(Refusal) as refused:
        ended(2, "", "error: RUN: expected one of cluster 7, found another. Fix: name it\n")
    assert str(refused.value) == "RUN: expected one of cluster 7, found another. Fix: name it"


def test_the_newest_transfer_is_that_of_all_ledgers() -> None:
    stamps = {1: 1_700_000_000_500_000_000, 2: 1_700_000_300_000_000_000, 3: 0}
    found = Totals(ledgers={n: LedgerTotals(last_transfer_ns=ns) for n, ns in stamps.items()})
    assert totals.newest_at(found) == datetime.fromtimestamp(1_700_000_300, UTC)
    assert totals.newest_at(Totals()) is None


def test_a_backups_age_is_that_of_its_newest_transfer() -> None:
    hour = timedelta(hours=1)
    behind_s = Finding([], 1.0, datetime.now(UTC) - hour).behind_s
    assert behind_s is not None
    assert hour.total_seconds() <= behind_s < hour.total_seconds() + 600
    assert Finding([], 1.0).behind_s is None
