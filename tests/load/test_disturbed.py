"""Runs that are disturbed: clients evicted, servers killed or frozen, Ctrl-C, and a pause.

Each load goes on until the test has seen what it waits for in the lines of progress.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess

import psutil
import pytest

import tigerbeetle_emulator
from cluster.tigerbeetle.waiting import wait_until
from loadtests.proof.audit import audit
from loadtests.run.histogram import bucket_of
from loadtests.run.result import read_audit, read_result
from tests.load.conftest import CLUSTER_ID, TIMEOUT_S, Program, Server, load_options
from tigerbeetle_emulator.server.faults import Faults

#: Lines of progress: a second in which something, or nothing, was acknowledged; or went wrong.
SOME, NOTHING, WRONG = r" [1-9][\d,]* transfers/s", r" 0 transfers/s", "unknown or failed"


def wait_for(process: subprocess.Popen[str], pattern: str, lines: int = 1) -> None:
    """Until so many lines of progress have come that match."""
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        lines -= bool(re.search(pattern, line))
        if not lines:
            return
    raise AssertionError("the load ended early: " + "".join(seen))


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, as a terminal does it."""
    os.killpg(process.pid, signal.SIGINT)


def test_a_client_evicted_under_load_ends_the_run_and_says_why(program: Program) -> None:
    faults = Faults()
    with tigerbeetle_emulator.run(cluster=CLUSTER_ID, faults=faults) as crowded:
        options = ["--addresses", crowded.address, "--cluster-id", str(CLUSTER_ID)]
        process = program.spawn("--users", "5", "--run-time", "3600", "--wallets", "10", *options)
        wait_for(process, SOME)
        faults.evict = 1.0
        assert process.stderr
        message = next(line for line in process.stderr if line.startswith("error: "))
        faults.evict = 0.0
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert "evicted" in message and "64 sessions" in message
    assert process.returncode == 0, out + err  # what was acknowledged until then is there
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "passed"
    assert sum(found.unknown_resolved.values()) > 0


def test_a_server_killed_under_load_loses_nothing_acknowledged(
    program: Program, own_server: Server
) -> None:
    process = program.spawn(*load_options(own_server, think_s=0), "--deadline-s", "0.5")
    wait_for(process, SOME, 3)  # the first may be of the warm-up
    own_server.kill()
    wait_for(process, WRONG, 2)
    own_server.start()
    wait_for(process, SOME, 2)
    interrupt(process)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out + err
    result, found = read_result(program.newest), read_audit(program.newest)
    assert result and found
    assert found.verdict == "passed"
    assert result.window.unknown > 0
    assert any("gone" in fault.what for fault in result.faults)
    assert any("back" in fault.what for fault in result.faults)


def test_a_cluster_that_stays_away_ends_the_run_and_the_verdict_is_unknown(
    program: Program, own_server: Server
) -> None:
    bounds = ("--deadline-s", "0.5", "--audit-timeout-s", "3")
    # It ends by itself, ten times as late as what is waited for was seen.
    process = program.spawn(*load_options(own_server, seconds=20, think_s=0), *bounds)
    wait_for(process, SOME)
    own_server.kill()
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 4, out + err
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "unknown"
    assert "refuses" in found.checks[-1].detail
    result = read_result(program.newest)
    assert result
    assert result.unanswered > 0
    # The cluster comes back, and the same run can be proved after all.
    own_server.start()
    proved = audit(program.newest)
    assert proved.verdict == "passed", proved
    assert sum(proved.unknown_resolved.values()) >= result.unanswered


def test_ctrl_c_ends_a_run_in_order_though_nothing_answers(
    program: Program, own_server: Server
) -> None:
    process = program.spawn(*load_options(own_server, think_s=0), "--deadline-s", "1")
    wait_for(process, SOME)
    own_server.freeze()
    wait_for(process, NOTHING)
    interrupt(process)
    path = program.newest / "result.json"
    wait_until(lambda: (path.is_file(), "no result yet"), what="the result", timeout_s=TIMEOUT_S)
    own_server.thaw()  # the audit needs it
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out + err
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "passed"


@pytest.mark.long
def test_workers_that_are_interrupted_before_their_master_hand_in_all_they_have(
    program: Program, server: Server
) -> None:
    process = program.spawn(*load_options(server, think_s=0), "--processes", "2")
    wait_for(process, SOME)
    (master,) = psutil.Process(process.pid).children()
    for worker in master.children():
        worker.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out + err
    found = read_audit(program.newest)
    assert found
    assert found.verdict == "passed"


def test_an_open_loop_keeps_to_its_schedule_and_shows_a_pause_as_the_latency_it_caused(
    program: Program, own_server: Server
) -> None:
    rate, users, deadline_s = 50, 20, 2
    process = program.spawn(
        *load_options(own_server, users, think_s=0),
        *("--rate", str(rate), "--arrivals", "fixed", "--deadline-s", str(deadline_s)),
    )
    wait_for(process, SOME, 3)
    own_server.freeze()
    wait_for(process, NOTHING, 3)
    own_server.thaw()
    wait_for(process, SOME, 5)
    interrupt(process)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, out + err
    result = read_result(program.newest)
    assert result
    assert result.manifest.settings.mode == "open"
    (half_a_second,) = bucket_of([0.5])
    late = sum(
        count
        for action in result.actions.values()
        for bucket, count in action.buckets.items()
        if bucket > half_a_second
    )
    # A closed loop would have sent no more than each user's one action for each deadline.
    assert late + result.window.drops > 2 * users
    started = sum(
        action.ok + action.rejected + action.unknown + action.error
        for name, action in result.actions.items()
        if name not in ("capture", "void")  # those follow their hold without an arrival
    )
    # Whatever the machine's speed: in flight, due and not yet dropped, of a second cut in two.
    waiting = users + rate * (deadline_s + 1)
    due = rate * result.window.duration_s
    assert due - waiting <= started + result.window.drops <= due + waiting


#: Their opening takes longer than the run.
MANY = ("--wallets", "10000", "--warmup-s", "0")


def test_a_run_takes_its_time_from_when_its_wallets_are_open(
    program: Program, own_server: Server
) -> None:
    done = program.load(own_server, *MANY, seconds=1)
    assert done.returncode == 0, done.stdout + done.stderr
    result, found = read_result(program.newest), read_audit(program.newest)
    assert result and found
    assert found.verdict == "passed"
    assert result.window.actions > 0


def test_ctrl_c_while_wallets_are_opened_convicts_no_ledger(
    program: Program, own_server: Server
) -> None:
    process = program.spawn(*load_options(own_server), *MANY)

    def is_opening() -> tuple[bool, str]:
        return any(program.runs.glob("*/accounts-0.bin")), "no accounts yet"

    wait_until(is_opening, what="the wallets to be opened", timeout_s=TIMEOUT_S)
    interrupt(process)
    out, err = process.communicate(timeout=TIMEOUT_S)
    found = read_audit(program.newest)
    assert found, out + err
    assert found.verdict == "passed", (found, out, err)
