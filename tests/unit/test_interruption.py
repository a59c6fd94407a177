"""Signals: the first ends a command, unless something must be whole; further ones say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from cluster import REPOSITORY
from cluster.interruption import SIGNALS, heard, whole


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_interrupts_once_and_is_answered_then(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with heard():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert capsys.readouterr().out == "interrupted: please wait, ending what was begun\n"
    assert signal.getsignal(number) == before


def test_what_is_whole_is_done_before_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def restart() -> None:
        with whole("starting it"):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            done.append("started")

    with heard(), pytest.raises(KeyboardInterrupt):
        restart()
    assert done == ["started"]
    assert capsys.readouterr().out == "interrupted: please wait, starting it\n" * 2


#: A program that is interrupted within a hook of its fork, and tells what it does afterwards.
FORKING = """
import os, signal, sys, time
os.register_at_fork(**{sys.argv[1]: lambda: os.kill(os.getpid(), signal.SIGINT)})
from cluster import interruption
interruption.listen(by=SystemExit(130))
if pid := os.fork():
    os.waitpid(pid, 0)
    time.sleep(20)
    print("lost")
"""


@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
def test_an_interruption_in_the_midst_of_a_fork_is_not_lost(hook: str) -> None:
    command = [sys.executable, "-c", FORKING, hook]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=150, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
