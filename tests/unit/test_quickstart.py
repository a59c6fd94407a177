"""The quickstart takes the most genuine engine this machine can really run, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import config
from cluster.operate import quickstart
from cluster.operate.quickstart import Step, StepFailed, choose, passed_checks, run_step

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))
ENOUGH = 3 * config.memory_bytes(CLUSTER)


NO_DOCKER = "docker: no engine answers"


def test_docker_is_preferred_where_it_is_ready() -> None:
    choice = choose(CLUSTER, Path("/bin/tigerbeetle"), ENOUGH, None)
    assert choice.inventory == "inventories/local.py"
    assert CLUSTER.image in choice.reason


def test_without_docker_a_server_and_memory_for_it_are_taken() -> None:
    choice = choose(CLUSTER, Path("/bin/tigerbeetle"), ENOUGH, NO_DOCKER)
    assert choice.inventory == "inventories/process.py"
    assert "/bin/tigerbeetle" in choice.reason
    assert NO_DOCKER in choice.reason


def test_without_a_server_it_is_the_emulator() -> None:
    choice = choose(CLUSTER, None, ENOUGH, NO_DOCKER)
    assert choice.inventory == "inventories/emulator.py"
    assert "no tigerbeetle server" in choice.reason
    assert NO_DOCKER in choice.reason


def test_without_the_memory_it_is_the_emulator_though_a_server_is_here() -> None:
    choice = choose(CLUSTER, Path("/bin/tigerbeetle"), ENOUGH - 1, NO_DOCKER)
    assert choice.inventory == "inventories/emulator.py"
    assert "7.7 GiB are free" in choice.reason
    assert NO_DOCKER in choice.reason


def test_a_step_that_fails_says_which_and_why(tmp_path: Path) -> None:
    step = Step("verify", ["sh", "-c", "echo seen; exit 3"], "look")
    with pytest.raises(StepFailed, match="verify: exit code 3"):
        run_step(step, {}, tmp_path / "log")
    assert (tmp_path / "log").read_text() == "seen\n"


def test_a_step_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "STEP_TIMEOUT_S", 0.2)
    with pytest.raises(StepFailed, match="no end within"):
        run_step(Step("load", ["sleep", "60"], "look"), {}, tmp_path / "log")


def test_a_long_step_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "PROGRESS_S", 0.05)
    script = f"echo begun; echo 'replica  0   starting'; until [ -e {tmp_path}/seen ]; do :; done"
    seen: list[str] = []

    def note(text: str) -> None:
        seen.append(text)
        if "replica 0 starting" in text:
            (tmp_path / "seen").touch()

    run_step(Step("deploy", ["sh", "-c", script], "look"), {}, tmp_path / "log", note)
    assert seen[-1].endswith(" s: replica 0 starting")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "a\n  x: expected b, found c. Fix: d\nTraceback\n  File e\npyinfra: exit\n",
            "x: expected b",
        ),
        ("a\nSomeError: no\n    at 3\n", "SomeError: no"),
        ("one\n\ntwo\n\n", "two"),
        ("", "it said nothing"),
    ],
)
def test_a_failure_ends_with_the_line_that_says_why(said: str, line: str) -> None:
    assert quickstart.why(said).startswith(line)


def test_skipped_checks_are_not_counted_as_passed(tmp_path: Path) -> None:
    junit = tmp_path / "x.xml"
    junit.write_text(
        '<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>'
    )
    assert passed_checks(junit) == 4
