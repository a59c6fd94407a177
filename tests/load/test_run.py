"""Whole runs against an emulator process, as a person starts them: load, faults, audit, verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import tigerbeetle_emulator
from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from loadtests.proof.audit import audit
from loadtests.run import runs
from loadtests.run.result import Audit, read_audit, read_result
from tests.leases import free_ports
from tests.load.conftest import CLUSTER_ID, Finished, Program, Server, load_options
from tigerbeetle_emulator.server.faults import Faults


def failed(found: Audit) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.verdict == "failed"}


def test_a_run_passes_its_audit_and_names_its_engine(finished: Finished) -> None:
    done, result, found = finished.done, read_result(finished.run), read_audit(finished.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result and found
    assert found.verdict == "passed"
    assert found.transfers_checked >= result.transfers_acknowledged > 100
    assert "EMULATOR" in done.stdout
    assert result.manifest.target.engine == "emulator"
    assert {"pay", "deposit", "withdraw", "hold", "exchange", "balance"} <= set(result.actions)
    assert "EMULATOR" in (finished.run / "report.html").read_text(encoding="utf-8")


def test_a_client_evicted_under_load_ends_the_run_and_says_why(program: Program) -> None:
    faults = Faults()
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, faults=faults) as crowded:
        options = ["--addresses", crowded.address, "--cluster-id", str(CLUSTER_ID)]
        process = program.spawn("--users", "5", "--run-time", "60", "--wallets", "10", *options)
        wait_for_seconds(process, 1)
        faults.evict = 1.0
        assert process.stderr
        message = next(line for line in process.stderr if line.startswith("error: "))
        faults.evict = 0.0
        out, err = process.communicate(timeout=60)
    assert "evicted" in message and "64 sessions" in message
    assert process.returncode == 0, out + err  # what was acknowledged until then is there
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "passed"
    assert sum(found.unknown_resolved.values()) > 0


def test_two_processes_share_no_wallet_and_have_one_audit(finished: Finished) -> None:
    result = read_result(finished.run)
    assert result
    assert (result.workers, result.complete) == (2, True)
    record = runs.read_record(finished.run)
    assert set(record["sent"]["user_data_32"].tolist()) == {0, 1}
    for worker in (0, 1):
        mine = record["sent"][record["sent"]["user_data_32"] == worker]
        assert set((mine["debit_account_id"][:, 0] >> np.uint64(40)).tolist()) == {worker}


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
    assert sum(counted.values()) == answered > 100
    assert counted["pay"] >= result.actions["pay"].ok > 0


def locust(
    program: Program, server: Server, *more: str, seconds: int = 3, users: int = 20
) -> subprocess.CompletedProcess[str]:
    options = load_options(server, users, seconds)[4:]  # without --users and --seconds
    return subprocess.run(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py"),
            *("--headless", "--users", str(users), "--run-time", f"{seconds}s", *options, *more),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_server_killed_under_load_loses_nothing_acknowledged(
    program: Program, own_server: Server
) -> None:
    options = load_options(own_server, 20, 12)  # its clock runs while it connects
    process = program.spawn(*options, "--deadline-s", "0.5")
    wait_for_seconds(process, 2)
    own_server.kill()
    time.sleep(1)
    own_server.start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    result, found = read_result(program.newest), read_audit(program.newest)
    assert result and found
    assert found.verdict == "passed"
    assert result.window.unknown > 0
    assert any("gone" in fault.what for fault in result.faults)
    assert any("back" in fault.what for fault in result.faults)
    assert result.series[-1].at - result.series[0].at >= 3


def wait_for_seconds(process: subprocess.Popen[str], lines: int) -> None:
    """Until so many lines of progress have come."""
    assert process.stderr
    for line in process.stderr:
        if "actions/s" in line:
            lines -= 1
            if not lines:
                return
    raise AssertionError("the load ended early")


def test_a_cluster_that_stays_away_ends_the_run_and_the_verdict_is_unknown(
    program: Program, own_server: Server
) -> None:
    bounds = ("--deadline-s", "0.5", "--audit-timeout-s", "3")
    process = program.spawn(*load_options(own_server, 20, 8), *bounds)
    wait_for_seconds(process, 1)
    own_server.kill()
    began = time.monotonic()
    out, err = process.communicate(timeout=80)
    assert process.returncode == 4, out + err
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "unknown"
    assert "refuses" in found.checks[-1].detail
    assert time.monotonic() - began < 60
    result = read_result(program.newest)
    assert result
    assert result.unanswered > 0
    # The cluster comes back, and the same run can be proved after all.
    own_server.start()
    proved = audit(program.newest)
    assert proved.verdict == "passed", failed(proved)
    assert sum(proved.unknown_resolved.values()) >= result.unanswered


def test_ctrl_c_ends_a_run_in_order_and_within_a_bound_though_nothing_answers(
    program: Program, own_server: Server
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cluster", "load", *load_options(own_server, 20, 60)),
            *("--deadline-s", "1"),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for_seconds(process, 1)
    own_server.freeze()
    time.sleep(0.3)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    path = program.newest / "result.json"
    wait_until(lambda: (path.is_file(), "no result yet"), what="the result", timeout_s=30)
    assert time.monotonic() - began < 25
    own_server.thaw()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "passed"


def test_an_open_loop_keeps_to_its_schedule_and_shows_a_pause_as_the_latency_it_caused(
    program: Program, own_server: Server
) -> None:
    rate = 50
    process = program.spawn(
        *load_options(own_server, 100, 8), "--rate", str(rate), "--arrivals", "fixed"
    )
    wait_for_seconds(process, 2)
    own_server.freeze()
    time.sleep(2)
    own_server.thaw()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    result = read_result(program.newest)
    assert result
    assert result.manifest.settings.mode == "open"
    assert (result.window.latency.p99_ms or 0) > 500
    started = sum(
        action.ok + action.rejected + action.unknown + action.error
        for name, action in result.actions.items()
        if name not in ("capture", "void")  # those follow their hold without an arrival
    )
    # A closed loop would have left out the two seconds in which nothing was answered.
    due = rate * result.window.duration_s
    assert started + result.window.drops == pytest.approx(due, rel=0.2)


@pytest.mark.parametrize(
    ("threshold", "code", "text"),
    [("throughput_min = 1e9", 3, "MISSED actions/s"), ("throughput_min = 1", 0, "met")],
)
def test_a_gate_has_its_own_exit_code(
    copied: Path, program: Program, tmp_path: Path, threshold: str, code: int, text: str
) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(f"[gate]\n{threshold}\n")
    done = program(str(file), "--run", str(copied), command="gate")
    assert done.returncode == code, done.stdout + done.stderr
    assert text in done.stdout


def test_a_shape_varies_the_users(program: Program, server: Server) -> None:
    done = program.load(server, "--shape", "step", users=10, seconds=6)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(program.newest)
    assert result
    assert result.manifest.settings.profile == "Step"
    assert len({point.users for point in result.series}) > 1


def test_full_batches_pass_too(program: Program, server: Server) -> None:
    done = program.load(server, "--batch-max", "500", "SettlementUser", users=2, seconds=6)
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
    began = time.monotonic()
    done = program.load(server, *options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60  # a client of a wrong cluster would wait for ever
    assert not list(program.runs.glob("*/run.json"))


def test_the_web_ui_offers_our_users_and_starts_a_run(program: Program, server: Server) -> None:
    port = free_ports(1)[0]
    options = load_options(server, 5, 5)[4:]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "--locustfile", "loadtests/locustfile.py"),
            *("--web-host", "127.0.0.1", "--web-port", str(port), "--class-picker", *options),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"LOADTESTS_RUNS": str(program.runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _opens(base), what="the web UI", timeout_s=30)
        assert "SettlementUser" in _get(base)
        form = {"user_count": 5, "spawn_rate": 5, "user_classes": "WalletUser"}
        _get(f"{base}/swarm", urllib.parse.urlencode(form).encode())
        wait_until(lambda: (_requests(base) > 50, "no requests yet"), what="requests", timeout_s=20)
        _get(f"{base}/stop", b"")
        wait_until(
            lambda: (bool(list(program.runs.glob("*/result.json"))), "none"),
            what="the result",
            timeout_s=20,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert audit(program.newest).verdict == "passed"


def _get(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        return str(answer.read().decode())


def _opens(base: str) -> tuple[bool, str]:
    try:
        return bool(_get(base)), "empty"
    except OSError as error:
        return False, str(error)


def _requests(base: str) -> int:
    stats = json.loads(_get(f"{base}/stats/requests"))["stats"]
    return int(next(s["num_requests"] for s in stats if s["name"] == "Aggregated"))
