"""Options and targets: every wrong value is told with what was expected, what was found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cluster import REPOSITORY, cli
from cluster.refusal import Refusal
from loadtests import load, options
from loadtests.run import target

GOOD = {
    "wallets": 100,
    "skew": 1.0,
    "rate": 0.0,
    "warmup_s": 2.0,
    "think_s": 0.0,
    "deadline_s": 5.0,
    "batch_max": 8189,
}


def test_good_options_pass() -> None:
    options.check(argparse.Namespace(**GOOD))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("wallets", 1, "--wallets: expected 2 or more, found 1"),
        ("skew", -1.0, "--skew: expected 0 or more, found -1.0"),
        ("rate", -5.0, "--rate: expected 0 (closed loop) or more, found -5.0"),
        ("warmup_s", -1.0, "--warmup-s: expected 0 or more"),
        ("think_s", -1.0, "--think-s: expected 0 or more"),
        ("deadline_s", 0.0, "--deadline-s: expected 0.1 to 60"),
        ("deadline_s", 61.0, "--deadline-s: expected 0.1 to 60"),
        ("batch_max", 2, "--batch-max: expected 3 to 8189, found 2"),
        ("batch_max", 8190, "--batch-max: expected 3 to 8189, found 8190"),
    ],
)
def test_a_value_that_cannot_work_is_told(name: str, value: float, message: str) -> None:
    with pytest.raises(Refusal) as raised:
        options.check(argparse.Namespace(**{**GOOD, name: value}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("engine", "label"),
    [(None, "undeclared"), ("tigerbeetle", "TigerBeetle (as declared)"), ("emulator", "EMULATOR")],
)
def test_a_cluster_named_by_its_addresses_is_never_taken_for_more_than_was_declared(
    engine: str | None, label: str
) -> None:
    found = target.resolve(cluster_id=None, addresses="127.0.0.1:3000", engine=engine)
    assert label in found.label
    assert (found.cluster_id, found.release) == ("0", "not known")


@pytest.mark.parametrize(
    ("cluster_id", "addresses", "engine", "message"),
    [
        ("x", "127.0.0.1:3000", None, "--cluster-id: expected 0 to 2^128 - 1, found 'x'"),
        (str(1 << 128), "127.0.0.1:3000", None, "--cluster-id: expected 0 to 2^128 - 1"),
        ("1", "127.0.0.1:3000", "postgres", "--engine: expected tigerbeetle or emulator"),
        ("1", None, None, "expected only together with --addresses"),
        (None, None, "emulator", "expected only together with --addresses"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(
    cluster_id: str | None, addresses: str | None, engine: str | None, message: str
) -> None:
    with pytest.raises(Refusal) as raised:
        target.resolve(cluster_id=cluster_id, addresses=addresses, engine=engine)
    assert message in str(raised.value)


def test_an_inventory_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY", "inventories/nowhere.py")
    with pytest.raises(Refusal, match=r"INVENTORY: expected .*inventories/emulator\.py"):
        target.resolve(cluster_id=None, addresses=None, engine=None)


@pytest.mark.parametrize(
    ("text", "expected"), [("20", 20), ("20s", 20), ("5m", 300), ("1h", 3600), (" 7 ", 7)]
)
def test_a_duration_is_read_as_locust_reads_it(text: str, expected: int) -> None:
    assert options.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "-3", "1.5", "1d"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a duration such as 20s or 5m"):
        options.seconds(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "0"], "--users: expected 1 or more"),
        (["--runs", "0"], "--runs: expected 1 or more"),
        (["--run-time", "0"], "--run-time: expected 1 second or more"),
        (["--shape", "circle"], "'circle' is not one of"),
        (["--gate", "none.toml"], "none.toml"),
    ],
)
def test_a_wrong_argument_ends_with_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["load", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_open_loop_has_a_larger_pool_of_users() -> None:
    assert load.settled(None, None, ["--skew", "1"]) == (load.USERS, ["--skew", "1"])
    assert load.settled(None, 100.0, []) == (load.POOL, ["--rate", "100.0"])


def test_a_place_that_cannot_keep_a_run_is_told_before_locust_begins(tmp_path: Path) -> None:
    """Locust shows a traceback of what fails at a run's start, and goes on without a record."""
    (tmp_path / "runs").write_text("a file")
    locust = [str(Path(sys.executable).parent / "locust"), "--headless", "--users=1"]
    done = subprocess.run(
        [*locust, "--locustfile=loadtests/locustfile.py", "--run-time=1s"],
        env=os.environ | {"LOADTESTS_RUNS": str(tmp_path / "runs")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert f"error: {tmp_path / 'runs'}: expected to read, write or run it" in done.stderr
    assert "Traceback" not in done.stderr
