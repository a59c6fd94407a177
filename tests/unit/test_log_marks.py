"""Where each runtime's log is read on, for whoever looks again: only what is new."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock, patch

from cluster import config
from cluster.health import health
from cluster.runtimes.container import InContainer
from cluster.runtimes.process import lines_after
from cluster.runtimes.systemd import Systemd


def test_a_process_log_is_read_on_behind_its_mark(tmp_path: Path) -> None:
    log = tmp_path / "replica.log"
    log.write_text("one\ntwo\nhalf")
    said, mark = lines_after([log], "")
    assert said == ["one", "two", "half"]
    log.write_text("one\ntwo\nhalf of it\n")
    said, mark = lines_after([log], mark)
    assert said == ["half of it"]
    assert lines_after([log], mark) == ([], mark)
    assert lines_after([], mark) == ([], mark)  # it is gone


def test_a_process_log_that_was_rotated_is_read_on_in_its_old_part(tmp_path: Path) -> None:
    log, old, older = (tmp_path / f"replica.log{part}" for part in ("", ".1", ".2"))
    older.write_text("long ago\n")
    log.write_text("one\n")
    _, mark = lines_after([older, log], "")
    with log.open("a") as more:
        more.write("two\n")
    log.rename(old)
    log.write_text("three\n")
    assert lines_after([older, old, log], mark)[0] == ["two", "three"]
    old.unlink()  # rotated away: all that is kept is new
    assert lines_after([log], mark)[0] == ["three"]


def test_a_process_log_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "replica.log"
    log.write_text("one\ntwo\n")
    _, mark = lines_after([log], "")
    log.write_text("new\n")
    assert lines_after([log], mark)[0] == ["new"]


def test_a_container_log_is_read_on_behind_its_mark() -> None:
    first, second, third = (f"2026-11-28T18:00:0{n}.000000009Z" for n in (1, 2, 3))
    assert InContainer.log_options("") == ["--timestamps"]
    said, mark = InContainer.marked([f"{first} one", f"{second} two"], "")
    assert (said, mark) == (["one", "two"], second)
    assert InContainer.log_options(mark) == ["--timestamps", f"--since={second}"]
    # Docker gives the line of that time once more.
    assert InContainer.marked([f"{second} two", f"{third} "], mark) == ([""], third)
    assert InContainer.marked([], mark) == ([], mark)
    # Replaced: until there is a new one, only an error; all that the new one says is newer.
    assert InContainer.marked(["Error: No such container: x"], mark) == ([], mark)
    assert InContainer.marked([f"{third} opening"], mark) == (["opening"], third)


def test_a_journal_is_read_on_behind_its_mark() -> None:
    assert Systemd.log_options("") == ["--show-cursor"]
    said, mark = Systemd.marked(["one", "-- cursor: s=1;i=2"], "")
    assert (said, mark) == (["one"], "s=1;i=2")
    assert Systemd.log_options(mark) == ["--show-cursor", "--after-cursor=s=1;i=2"]
    assert Systemd.marked(["-- cursor: s=1;i=3"], mark) == ([], "s=1;i=3")
    assert Systemd.marked([], mark) == ([], mark)  # a server that does not answer


def test_a_log_is_read_once_by_whoever_looks_again(tmp_path: Path) -> None:
    """What was said before the mark still holds; a new start, as of a new container, ends it."""
    normal = "info(replica): 0n: transition_to_normal_from_view_change_status: view=4..5 backup"
    told = {"": ([normal], "a"), "a": ([], "a")}
    runtime = Mock(log_after=lambda index, mark: told[mark])
    with patch.object(health, "of", return_value=runtime):
        logs = health.Logs(Mock(cluster=config.load(environ={})))
    assert [logs.of(0).view, logs.of(0).view] == [5, 5]
    told |= {"b": ([], "b")}
    told["a"] = (['info(io): opening "0_0.tigerbeetle"...'], "b")
    assert (logs.of(0).view, logs.of(0).status) == (None, "")
