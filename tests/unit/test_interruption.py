"""Signals: the first ends a command, unless something must be whole; further ones say so."""

from __future__ import annotations

import os
import signal

import pytest

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
