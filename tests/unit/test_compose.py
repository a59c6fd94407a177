"""What a command of the engine shows while it works, and how it ends."""

from __future__ import annotations

import pytest

from cluster.refusal import Refusal
from cluster.runtimes import compose


def test_a_command_is_shown_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    compose.show(["sh", "-c", "echo one; echo two >&2"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_command_that_fails_is_told_with_its_last_line() -> None:
    with pytest.raises(Refusal, match="expected it to succeed, found: it rained"):
        compose.show(["sh", "-c", "echo pulling; echo it rained; exit 1"])


def test_a_command_without_end_is_ended_and_told_with_what_it_last_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compose, "_SHOWN_TIMEOUT_S", 1.0)
    with pytest.raises(Refusal, match="expected its end within 1 s, found: pulling"):
        compose.show(["sh", "-c", "echo pulling; exec sleep 60"])
