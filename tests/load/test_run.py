"""Whole runs against an emulator process, as a person starts them: load, audit, verdict, gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from cluster import REPOSITORY
from cluster import cli as commands
from cluster.tigerbeetle.waiting import wait_until
from loadtests.proof.audit import audit
from loadtests.report.curve import read_capacity
from loadtests.run import runs
from loadtests.run.histogram import seconds_of
from loadtests.run.result import Audit, read_audit, read_result
from tests.leases import free_ports
from tests.load.conftest import TIMEOUT_S, Finished, Program, Server, load_options


def failed(found: Audit) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.verdict == "failed"}


def test_a_run_passes_its_audit_and_names_its_engine(finished: Finished) -> None:
    done, result, found = finished.done, read_result(finished.run), read_audit(finished.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result and found
    assert found.verdict == "passed"
    assert found.transfers_checked >= result.transfers_acknowledged > 0
    assert "EMULATOR" in done.stdout
    assert "ms waiting for the packet in flight" in " ".join(done.stdout.split())
    assert result.manifest.target.engine == "emulator"
    assert {"pay", "deposit", "withdraw", "hold", "exchange", "balance"} <= set(result.actions)
    assert "EMULATOR" in (finished.run / "report.html").read_text(encoding="utf-8")


def test_what_latency_consists_of_adds_up_to_it(finished: Finished) -> None:
    result = read_result(finished.run)
    assert result
    window = result.window
    whole = window.composition
    assert whole
    assert (
        whole.all.actions
        == window.actions
        == sum(a.ok + a.rejected for a in result.actions.values())
    )
    buckets = [action.buckets for action in result.actions.values()]
    seconds = sum(seconds_of(b) * n for of_action in buckets for b, n in of_action.items())
    assert whole.all.mean_ms == pytest.approx(1000 * seconds / window.actions, rel=0.02)
    assert whole.median.mean_ms == pytest.approx(window.latency.p50_ms, rel=0.1)
    assert whole.slowest.mean_ms >= 0.9 * (window.latency.p99_ms or 0)
    for name, action in result.actions.items():
        assert action.parts
        assert action.parts.packet_ms > 0, name
    statement = result.actions["statement"].parts
    assert statement
    assert statement.waiting_ms == 0  # its packet is its own


@pytest.mark.long
def test_a_search_in_which_nothing_meets_the_bound_says_so_and_shows_its_curve(
    program: Program, server: Server
) -> None:
    """However fast the machine is: nothing answers within a microsecond."""
    few = ("--users", "2", "--start-rate", "1", "--window-s", "1", "--p99-ms", "0.001")
    where = load_options(server)[6:]
    done = program(*few, *where, command="capacity")
    found = read_capacity(program.newest)
    assert found, done.stdout + done.stderr
    assert found.knee is None
    assert (found.verdict, done.returncode) in {("none", 3), ("disturbed", 4)}, done.stdout
    assert f"capacity: {'not even' if found.verdict == 'none' else 'unknown'}" in done.stdout
    assert [window.is_probe for window in found.windows][:2] == [True, False]
    assert {window.verdict for window in found.windows} <= {"bad", "void"}
    assert "each rate that was tried" in (program.newest / "report.html").read_text("utf-8")
    assert read_audit(program.newest).verdict == "passed"  # type: ignore[union-attr]


def test_two_processes_share_no_wallet_and_have_one_audit(finished: Finished) -> None:
    result = read_result(finished.run)
    assert result
    assert (result.workers, result.complete) == (2, True)
    record = np.concatenate([lines[:] for lines in runs.records_of(finished.run)])
    assert set(record["sent"]["user_data_32"].tolist()) == {0, 1}
    for worker in (0, 1):
        mine = record["sent"][record["sent"]["user_data_32"] == worker]
        assert set((mine["debit_account_id"][:, 0] >> np.uint64(40)).tolist()) == {worker}


@pytest.mark.long
def test_locusts_own_statistics_agree_with_the_result(
    program: Program, server: Server, tmp_path: Path
) -> None:
    done = locust(program, server, "--json-file", str(tmp_path / "stats"))
    assert done.returncode == 0, done.stderr
    stats = json.loads((tmp_path / "stats.json").read_text())
    counted = {row["name"]: row["num_requests"] for row in stats}
    result = read_result(program.newest)
    assert result
    answered = sum(p.ok + p.rejected + p.unknown + p.error for p in result.series)
    assert sum(counted.values()) == answered > 0
    assert counted["pay"] >= result.actions["pay"].ok


def locust(
    program: Program, server: Server, *more: str, seconds: int = 6, users: int = 20
) -> subprocess.CompletedProcess[str]:
    options = load_options(server)[4:]  # without --users and --run-time
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py"),
            *("--headless", "--users", str(users), "--run-time", f"{seconds}s", *options, *more),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("threshold", "code", "text"),
    [("throughput_min = 1e9", 3, "MISSED actions/s"), ("throughput_min = 1", 0, "met")],
)
def test_a_gate_has_its_own_exit_code(
    copied: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold: str,
    code: int,
    text: str,
) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(f"[gate]\n{threshold}\n")
    assert commands.main(["gate", str(file), "--run", str(copied)]) == code
    assert text in capsys.readouterr().out


def test_a_shape_varies_the_users(program: Program, server: Server) -> None:
    done = program.load(server, "--shape", "step", users=10, seconds=8)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(program.newest)
    assert result
    assert result.manifest.settings.profile == "step"
    assert len({point.users for point in result.series}) > 1


def test_full_batches_pass_too(program: Program, server: Server) -> None:
    done = program.load(server, "--batch-max", "500", "SettlementUser", users=2)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(program.newest)
    assert result
    assert set(result.actions) == {"settle"}
    assert result.window.transfers_per_request > 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster-id", "8"], "is the cluster id 8 right"),
        (["--processes", "40"], "worker processes: expected at most 15"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_sent(
    program: Program, server: Server, options: list[str], message: str
) -> None:
    done = program.load(server, *options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(program.runs.glob("*/run.json"))


@pytest.mark.long
def test_workers_that_cannot_open_their_wallets_in_time_end_the_run(
    program: Program, tmp_path: Path
) -> None:
    slow = Server(tmp_path, options=("--fault-latency=0.5",))
    slow.format()
    slow.start()
    try:
        done = program.load(slow, "--deadline-s", "0.1", "--processes", "2")
    finally:
        slow.kill()
    assert done.returncode == 4, done.stdout + done.stderr
    assert "error: no reply within 0.1 s" in done.stderr
    assert "Traceback" not in done.stderr
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "unknown"


def test_a_load_whose_command_was_killed_ends_in_order_by_itself(
    program: Program, server: Server
) -> None:
    command = [sys.executable, "-m", "cluster", "load", *load_options(server)]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert any("actions/s" in line for line in process.stderr)
    (locust_,) = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    locust_.wait(TIMEOUT_S)
    result = read_result(program.newest)
    assert result
    assert result.complete
    assert audit(program.newest).verdict == "passed"


def test_the_web_ui_offers_our_users_and_starts_a_run(program: Program, server: Server) -> None:
    port = free_ports(1)[0]
    options = load_options(server)[4:]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py"),
            *("--web-host", "127.0.0.1", "--web-port", str(port), *options),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _opens(base), what="the web UI", timeout_s=TIMEOUT_S)
        assert "SettlementUser" in _get(base)
        form = {"user_count": 5, "spawn_rate": 5, "user_class": "SettlementUser", "batch_max": 50}
        wrong = urllib.parse.urlencode(form | {"wallets": "abc"}).encode()
        assert "--wallets: expected a whole number, found 'abc'" in _get(f"{base}/swarm", wrong)
        assert not list(program.runs.glob("*"))
        _get(f"{base}/swarm", urllib.parse.urlencode(form).encode())
        wait_until(
            lambda: (_requests(base) > 0, "no requests yet"), what="requests", timeout_s=TIMEOUT_S
        )
        _get(f"{base}/stop", b"")
        wait_until(
            lambda: (bool(list(program.runs.glob("*/result.json"))), "none"),
            what="the result",
            timeout_s=TIMEOUT_S,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
    assert audit(program.newest).verdict == "passed"
    result = read_result(program.newest)
    assert result and result.manifest.settings.user_classes == ["SettlementUser"]


def _get(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=100) as answer:
        return str(answer.read().decode())


def _opens(base: str) -> tuple[bool, str]:
    try:
        return bool(_get(base)), "empty"
    except OSError as error:
        return False, str(error)


def _requests(base: str) -> int:
    stats = json.loads(_get(f"{base}/stats/requests"))["stats"]
    return int(next(s["num_requests"] for s in stats if s["name"] == "Aggregated"))
