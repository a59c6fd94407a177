"""A command that is interrupted at one of its steps, and what must be true of the replicas then.

A signal comes as whoever sends it does: a terminal's to everybody in its foreground, that of `kill`
to one program.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

import psutil
import pytest

from cluster import REPOSITORY
from cluster.config import PREFIX
from tests.clusters import INTERRUPTED, TIMEOUT_S, Sandbox

INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
How = tuple[signal.Signals, int]
#: Each signal, and how often: again as soon as the command says that it is ending.
HOW: tuple[How, ...] = (
    *((INT, 1), (INT, 2), (INT, 3)),
    *((TERM, 1), (TERM, 2)),
    *((HUP, 1), (KILL, 1)),
)
ROW = ("command", "step", "number", "times")
_ENDING = "interrupted: please wait|starting the replicas"


def matrix(
    steps: Mapping[str, Sequence[str]],
    chosen: Collection[tuple[object, ...]],
    how: Sequence[How] = HOW,
) -> list[Any]:
    """Commands × steps × ways, as rows of a test; all but the chosen ones take long together."""
    rows = [(c, step, *way) for c, at in steps.items() for step, way in product(at, how)]
    return [
        pytest.param(
            *row,
            id=f"{row[0]}, {row[1].strip('| ')}: {row[2].name} x {row[3]}",
            marks=[] if row in chosen else [pytest.mark.long],
        )
        for row in rows
    ]


def python(*words: str) -> list[str]:
    """``python -m cluster WORDS``, as make runs it."""
    return [sys.executable, "-m", "cluster", *words]


class Installation(Protocol):
    """Whatever commands are typed for: a sandbox, or a site of servers."""

    @property
    def environ(self) -> dict[str, str]:
        """The process environment of its commands."""


def interrupted(
    made: Installation, command: list[str], step: str, number: signal.Signals, times: int
) -> tuple[int, str]:
    """The exit code and the output of a command that is interrupted when it says ``step``."""
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=made.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        hung = threading.Timer(TIMEOUT_S, process.kill)
        hung.start()
        said, sent = "", 0
        for line in process.stdout:
            said += line
            due = _ENDING if sent else re.escape(step)
            if sent < times and re.search(due, line):
                _send(process, number)
                sent += 1
        process.wait()
        hung.cancel()
    assert step in said, said
    return process.returncode, said


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if number in (TERM, KILL):
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)


def change_a_setting(made: Sandbox) -> None:
    """From here on: every replica has to be started anew, one at a time."""
    key = f"{PREFIX}CACHE_GRID"
    made.overrides[key] = "128MiB" if made.environ[key] == "64MiB" else "64MiB"


def running(made: Sandbox) -> list[int]:
    """The replicas that have a process, by the machine's own list of them."""
    lines = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    return [i for i in range(3) if any(str(made.data_file(i)) in line for line in lines)]


def assert_runs_or_says_so(
    made: Sandbox, code: int, said: str, runs: Collection[object], *, is_up: bool = True
) -> None:
    """All replicas ``runs``, or the last line says that they do not and what helps, which does."""
    last = said.rstrip().splitlines()[-1]
    if code != 0:
        assert code == INTERRUPTED, said
        assert last.startswith("interrupted"), said
    if not is_up:
        return
    if len(runs) == 3:
        assert code == 0 or "every replica runs" in last, said
        return
    assert " run" in last, said
    fix = last.partition("Fix: ")[2]
    assert made.run(*shlex.split(fix)).returncode == 0, said


def assert_status_tells(made: Sandbox) -> None:
    """Who is killed says nothing: the status does, and what it advises helps."""
    if made.call("status").returncode != 0:
        done = made.run("make", "up")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
