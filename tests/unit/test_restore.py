"""The last word of a restore that fails, or is interrupted: true whichever phase it was."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cluster.checks import facts
from cluster.config import inventory
from cluster.operate import phase
from cluster.operate.backup import restore, sets, take
from cluster.refusal import Failed, Interrupted, Refusal

AS_BEFORE = "; the data files are as they were"
RESTORED = "; the data files are those of the backup"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A restore in which these phases end like this."""
    deployment = inventory.read("inventories/emulator.py")
    deployment = deployment.model_copy(update={"state_dir": tmp_path})  # where nothing runs
    monkeypatch.setattr(sets, "read", Mock(return_value=Mock(is_stored=False)))
    for name in ("refuse_foreign", "check_files"):
        monkeypatch.setattr(sets, name, Mock())
    for name in ("describe", "confirm", "observe", "_report"):
        monkeypatch.setattr(restore, name, Mock())
    monkeypatch.setattr(facts, "half_restored", Mock(return_value=False))
    monkeypatch.setattr(facts, "missing", Mock(return_value=[]))
    monkeypatch.setattr(take, "is_running", Mock(return_value=False))
    monkeypatch.setattr(take, "locked", lambda _: nullcontext())

    def ended(ends: dict[str, BaseException], ran: list[str] | None = None) -> Refusal:
        def run(_file: str, task: str, **_: object) -> None:
            if ran is not None:
                ran.append(task.rpartition(".")[2])
            if task.rpartition(".")[2] in ends:
                raise ends[task.rpartition(".")[2]]

        monkeypatch.setattr(phase, "run", run)
        with pytest.raises(Refusal) as raised:
            restore.restore("inventories/emulator.py", deployment, tmp_path)
        return raised.value

    return ended


@pytest.mark.parametrize(
    ("step", "so"),
    [("make_ready", AS_BEFORE), ("unpack", AS_BEFORE), ("swap", AS_BEFORE), ("accept", RESTORED)],
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
    assert str(failed).endswith("; no replica runs")


def test_a_check_of_the_machines_that_refuses_has_touched_nothing(failing: Any) -> None:
    ran: list[str] = []
    refused = failing({"make_ready": phase.Refused("no room")}, ran)
    assert (type(refused), str(refused)) == (Refusal, "no room")
    assert ran == ["make_ready"]


@pytest.mark.parametrize("ended", [Failed("an earlier restore's is there"), KeyboardInterrupt()])
def test_nothing_is_put_back_where_nothing_was_renamed(failing: Any, ended: BaseException) -> None:
    """What is there may be an earlier restore's, and the cluster may have been used since."""
    ran: list[str] = []
    failing({"unpack": ended}, ran)
    assert ran == ["make_ready", "unpack", "discard"]


@pytest.mark.parametrize("ended", [Failed("no"), KeyboardInterrupt()])
def test_what_was_renamed_is_put_back_also_where_it_could_not_start(
    failing: Any, ended: BaseException
) -> None:
    ran: list[str] = []
    failing({"swap": ended}, ran)
    assert ran == ["make_ready", "unpack", "swap", "undo"]
    ran.clear()
    failing({"py": ended}, ran)  # of deploy.py
    assert ran == ["make_ready", "unpack", "swap", "py", "stop", "undo"]


def test_what_could_not_be_stopped_is_not_called_as_before(failing: Any) -> None:
    failed = failing({"py": Failed("no"), "stop": phase.Refused("a server is away")})
    assert "old data files: expected back, found a server is away. Fix: " in str(failed)
    assert AS_BEFORE not in str(failed)


def test_where_there_were_no_data_files_only_a_restore_starts_the_cluster(
    failing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    again = f"Fix: make restore INVENTORY=inventories/emulator.py FROM={tmp_path}"
    assert str(failing({"make_ready": Failed("no")})).endswith(again)
    assert str(failing({"swap": Failed("no")})).endswith(
        "Fix: make up INVENTORY=inventories/emulator.py"
    )
    monkeypatch.setattr(facts, "missing", Mock(return_value=[1]))
    assert str(failing({"swap": Failed("no")})).endswith(again)
