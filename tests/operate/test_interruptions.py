"""Whatever is interrupted, however often: the replicas run again, or the last line says otherwise.

Commands × steps × signals × once, twice or three times, each as whoever sends it does: a terminal
to everybody in the foreground, `kill` to one program.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import product

import pytest

from cluster import REPOSITORY
from cluster.runtimes import of
from tests.clusters import TIMEOUT_S, Sandbox, sandbox
from tests.operate.ledger import Ledger

INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
#: Command → what it says when a step begins.
STEPS = {
    "backup": [
        "reading the ledger's totals",
        "| Check the room",
        "| Note when they stop",
        "| Stop the replicas",
        "| Pack the data files",
        "| Start the replicas",
        "| Wait until the cluster commits",
    ],
    "restart": ["restart: replica 0", "restart: replica 1", "restart: replica 2"],
    "up": ["new settings: replica 0", "new settings: replica 2"],
}
#: What is tried at each of them.
HOW = [*product((INT, TERM, HUP), (1, 2)), (INT, 3)]
#: One of each kind within `make test`: the rest is the whole matrix.
CHOSEN = {
    ("backup", "| Stop the replicas", TERM, 2),
    ("backup", "| Pack the data files", INT, 3),
    ("restart", "restart: replica 1", INT, 2),
    ("up", "new settings: replica 0", INT, 1),
}
MATRIX = [
    pytest.param(*row, id="-".join(map(str, row)), marks=[] if row in CHOSEN else pytest.mark.long)
    for command, steps in STEPS.items()
    for step, how in product(steps, HOW)
    for row in [(command, step, *how)]
]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    backups = tmp_path_factory.mktemp("backups")
    with sandbox("inventories/emulator.py", BACKUP_DIR=str(backups)) as made:
        assert made.up().returncode == 0
        ledger(made).write(1, 100)
        yield made


def ledger(made: Sandbox) -> Ledger:
    return Ledger(",".join(f"127.0.0.1:{port}" for port in made.ports))


def interrupted(
    made: Sandbox, command: list[str], step: str, number: signal.Signals, times: int
) -> tuple[int, str]:
    """The exit code and the output of a command that is interrupted when it says ``step``."""
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=made.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        hung = threading.Timer(TIMEOUT_S, process.kill)
        hung.start()
        said, sent = "", 0
        for line in process.stdout:
            said += line
            due = re.escape(step) if not sent else "interrupted: please wait|starting the replicas"
            if sent < times and re.search(due, line):
                send(process, number)
                sent += 1
        process.wait()
        hung.cancel()
    assert step in said, said
    return process.returncode, said


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """A terminal sends to everybody in its foreground."""
    if number == TERM:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)


def python(command: str) -> list[str]:
    words = {"up": ["run"], "restart": ["run", "tasks.replica.restart"]}
    return [sys.executable, "-m", "cluster", *words.get(command, [command])]


def assert_runs_or_says_so(made: Sandbox, code: int, said: str) -> None:
    last = said.rstrip().splitlines()[-1]
    states = of(made.deployment).states() or {}
    running = [i for i, process in states.items() if process.state in ("RUNNING", "STARTING")]
    if code == 0:  # it was at its end
        assert len(running) == 3, said
        return
    assert code == 130, said
    assert last.startswith("interrupted"), said
    if len(running) == 3:
        assert "every replica runs" in last, said
    else:
        assert "run" in last, said
        fix = last.partition("Fix: ")[2]
        assert made.run(*shlex.split(fix)).returncode == 0, fix


@pytest.mark.parametrize(("command", "step", "number", "times"), MATRIX)
def test_the_replicas_run_again_or_the_last_line_says_that_they_do_not(
    deployed: Sandbox, command: str, step: str, number: signal.Signals, times: int
) -> None:
    before = ledger(deployed).read(200)
    cache = "64MiB" if deployed.overrides.get("LU_CFG_TIGERBEETLE_CACHE_GRID") else "128MiB"
    changed = {"LU_CFG_TIGERBEETLE_CACHE_GRID": cache} if command == "up" else {}
    with deployed.having(**changed):
        code, said = interrupted(deployed, python(command), step, number, times)
        assert_runs_or_says_so(deployed, code, said)
    assert deployed.call("status").returncode == 0
    assert ledger(deployed).read(200) == before
