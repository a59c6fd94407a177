"""Options and targets: every wrong value is told with what was expected, what was found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from cluster import REPOSITORY, cli
from cluster.refusal import Refusal
from loadtests import load, options
from loadtests.run import target

GOOD = {
    "wallets": 100,
    "skew": 1.0,
    "seed": 1,
    "rate": 0.0,
    "warmup_s": 2.0,
    "think_s": 0.0,
    "deadline_s": 5.0,
    "batch_max": 8189,
}


#: What `make load` gives without a word.
GIVEN: dict[str, Any] = {"rate": None, "num_users": None, "run_time": None, "arrival_profile": None}


def wanted(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **GOOD
        | {"user_class": "WalletUser", "user_classes": [], "actions": "", "arrival_profile": ""}
        | {"run_time": 60}
        | changed
    )


def test_good_options_pass() -> None:
    options.check(argparse.Namespace(**GOOD))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"actions": "pay=1,settle=2"},
        {"arrival_profile": "day"},
        {"user_class": "ReaderUser", "run_time": None},
    ],
)
def test_options_that_go_together_pass(changed: dict[str, Any]) -> None:
    options.settle(wanted(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"wallets": 1}, "--wallets: expected 2 to"),
        ({"actions": "pay=1", "user_class": "ReaderUser"}, "WalletUser alone, found ReaderUser"),
        ({"actions": "pay=1", "user_classes": ["SettlementUser"]}, "found SettlementUser"),
        ({"actions": "pya=1"}, "(did you mean pay?)"),
        ({"arrival_profile": "dya"}, "(did you mean day?)"),
        ({"arrival_profile": "day", "run_time": None}, "--run-time: expected a duration"),
    ],
)
def test_options_that_do_not_go_together_are_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as raised:
        options.settle(wanted(**changed))
    assert message in str(raised.value)


def test_a_scenario_is_found_where_locust_would_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOADTESTS_SCENARIO", raising=False)
    assert options.named_scenario(["--users", "5"]) == ""
    assert options.named_scenario(["--scenario=a", "--users", "5"]) == "a"
    monkeypatch.setenv("LOADTESTS_SCENARIO", "b")
    assert options.named_scenario([]) == "b"
    assert options.named_scenario(["--scenario", "a"]) == "a"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("wallets", 1, "--wallets: expected 2 to 2147483647, found 1"),
        ("skew", -1.0, "--skew: expected 0 to 100, found -1.0"),
        ("skew", float("inf"), "--skew: expected 0 to 100, found inf"),
        ("seed", -1, "--seed: expected 0 or more, found -1"),
        ("rate", float("inf"), "--rate: expected 0 (closed loop) or more, found inf"),
        ("rate", float("nan"), "--rate: expected 0 (closed loop) or more, found nan"),
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
    ("text", "expected"),
    [("20", 20), ("20s", 20), ("5m", 300), ("1h", 3600), (" 7 ", 7), ("1h20m5", 4805)],
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
        (["--shape", "circle"], "--arrival-profile: expected one of day, flash-sale,"),
        (["--arrival-profile", "flash"], "(did you mean flash-sale?), found flash"),
        (["--scenario", "evryday"], "--scenario: expected one of everyday, flash-sale,"),
        (["--scenario", "none.toml"], "or a file that ends in .toml"),
        (["--gate", "none.toml"], "none.toml"),
    ],
)
def test_a_wrong_argument_ends_with_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["load", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scenario", "given", "users", "run_s", "more"),
    [
        ("", {}, load.USERS, load.RUN_S, []),
        ("", {"rate": 100.0}, load.POOL, load.RUN_S, ["--rate", "100.0"]),
        ("", {"rate": 100.0, "num_users": 5}, 5, load.RUN_S, ["--rate", "100.0"]),
        ("month-end", {}, load.POOL, 60, ["--scenario", "month-end"]),
        ("month-end", {"rate": 0.0}, load.USERS, 60, ["--scenario", "month-end", "--rate", "0.0"]),
        ("month-end", {"run_time": 5}, load.POOL, 5, ["--scenario", "month-end"]),
    ],
)
def test_what_is_given_wins_over_the_scenario_and_an_open_loop_has_a_larger_pool(
    scenario: str, given: dict[str, float], users: int, run_s: int, more: list[str]
) -> None:
    found = load.settled(scenario, GIVEN | given, ["--skew", "1"])
    assert found == (users, run_s, ["--skew", "1", *more])


def test_a_recorded_profile_is_an_open_loop(tmp_path: Path) -> None:
    file = tmp_path / "yesterday.csv"
    file.write_text("at,count\n0,10\n60,20\n")
    users, _, more = load.settled("", GIVEN | {"arrival_profile": str(file)}, [])
    assert (users, more) == (load.POOL, ["--arrival-profile", str(file)])


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
