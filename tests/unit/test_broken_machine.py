"""What a machine refuses ends in one line with the fix, and never in a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import REPOSITORY, cli

OURS = [sys.executable, "-m", "cluster"]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "mount it for writing"),
        (errno.EACCES, "as whoever owns it"),
        (errno.ENOENT, "install it"),
        (errno.EIO, "its disk"),
    ],
)
def test_an_error_of_the_machine_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, fix: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/of/it")

    monkeypatch.setattr(cli.commands, "main", fail)
    assert cli.main(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: /data/of/it: expected to read, write or run it, found ")
    assert os.strerror(number) in line
    assert fix in line


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    hosts = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
    out = "/proc/nowhere/x.local.env"
    done = subprocess.run(
        [*OURS, "init-env", *hosts, "--out", out],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: /proc/nowhere")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"'{sys.executable}' -m cluster config | true"
    done = subprocess.run(
        command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
