"""The last word of a restore that fails, or is interrupted: true whichever phase it was."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cluster.checks import facts
from cluster.config import inventory
from cluster.operate import backup, backup_set, phase, restore
from cluster.refusal import Failed, Interrupted, Refusal

AS_BEFORE = "; the data files are as they were"
RESTORED = "; the data files are those of the backup"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A restore in which these phases end like this."""
    deployment = inventory.read("inventories/emulator.py")
    deployment = deployment.model_copy(update={"state_dir": tmp_path})  # where nothing runs
    for name in ("read", "refuse_foreign", "check_files"):
        monkeypatch.setattr(backup_set, name, Mock())
    for name in ("describe", "confirm", "observe", "_report"):
        monkeypatch.setattr(restore, name, Mock())
    monkeypatch.setattr(facts, "half_restored", Mock(return_value=False))
    monkeypatch.setattr(facts, "missing", Mock(return_value=[]))
    monkeypatch.setattr(backup, "is_running", Mock(return_value=False))
    monkeypatch.setattr(backup, "locked", lambda _: nullcontext())

    def ended(ends: dict[str, BaseException]) -> Refusal:
        def run(_file: str, task: str, **_: object) -> None:
            if task.rpartition(".")[2] in ends:
                raise ends[task.rpartition(".")[2]]

        monkeypatch.setattr(phase, "run", run)
        with pytest.raises(Refusal) as raised:
            restore.restore("inventories/emulator.py", deployment, tmp_path)
        return raised.value

    return ended


@pytest.mark.parametrize(
    ("step", "so"), [("unpack", AS_BEFORE), ("swap", AS_BEFORE), ("accept", RESTORED)]
)
def test_the_last_word_says_whose_data_files_there_are(failing: Any, step: str, so: str) -> None:
    failed, interrupted = failing({step: Failed("no")}), failing({step: KeyboardInterrupt()})
    assert (type(failed), type(interrupted)) == (Failed, Interrupted)
    assert str(failed).startswith(f"no{so}; no replica runs")
    assert str(interrupted).startswith(f"interrupted{so}; no replica runs")


def test_what_was_not_put_back_is_never_called_as_before(failing: Any) -> None:
    failed = failing({"swap": Failed("no"), "undo": Failed("a full disk")})
    assert failed.exit_code == 1
    assert "old data files: expected back, found a full disk. Fix: " in str(failed)
    assert AS_BEFORE not in str(failed)
