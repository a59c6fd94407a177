"""The front door: from nothing to an audited report, and what it leaves behind when it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import TIMEOUT_S, Sandbox

#: Ten times what a busy machine has taken to deploy the emulator, and to stop it.
WITHIN_S = 300


def quickstart(made: Sandbox, runs: Path) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a short quickstart in this sandbox."""
    command = [sys.executable, "-m", "cluster", "quickstart", "--inventory", made.inventory]
    return [*command, "--duration-s", "5"], made.environ | {"LOADTESTS_RUNS": str(runs)}


def run(made: Sandbox, runs: Path) -> subprocess.CompletedProcess[str]:
    command, environ = quickstart(made, runs)
    return subprocess.run(
        command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_S
    )


def test_it_ends_with_a_passed_audit_and_leaves_the_cluster_running_and_so_does_a_failing_one(
    emulator: Sandbox, tmp_path: Path
) -> None:
    done = run(emulator, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EMULATOR (one node, no replication, not TigerBeetle)" in done.stdout
    assert "make down INVENTORY=inventories/emulator.py" in done.stdout
    (directory,) = tmp_path.iterdir()
    assert json.loads((directory / "audit.json").read_text())["verdict"] == "passed"
    assert json.loads((directory / "result.json").read_text())["transfers_acknowledged"] > 0
    assert "EMULATOR" in (directory / "report.html").read_text()
    pids = emulator.pids()
    assert all(psutil.pid_exists(pid) for pid in pids)

    emulator.overrides["LU_CFG_TIGERBEETLE_RELEASE"] = "0.17.8"  # fails the deploy's checks
    done = run(emulator, tmp_path)
    assert done.returncode == 1, done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("step deploy failed: exit code 1: ")
    assert "expected the server to be 0.17.8" in last
    assert "what to do: " in done.stdout
    assert all(psutil.pid_exists(pid) for pid in pids)


def test_ctrl_c_leaves_nothing_half_started(emulator: Sandbox, tmp_path: Path) -> None:
    command, environ = quickstart(emulator, tmp_path)
    process = subprocess.Popen(
        command,
        env=environ,
        cwd=REPOSITORY,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(
            lambda: (len(emulator.pids()) == 3, f"{len(emulator.pids())} pid files"),
            what="the replicas to be started",
            timeout_s=WITHIN_S,
        )
        pids = emulator.pids()
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
    assert process.returncode == 130, output
    _, alive = psutil.wait_procs(
        [psutil.Process(p) for p in pids if psutil.pid_exists(p)], WITHIN_S
    )
    assert alive == []
    assert not (emulator.state_dir / "supervisord.pid").exists()
