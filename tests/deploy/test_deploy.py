"""What a deploy makes, on each engine; and that a second one changes and restarts nothing."""

from __future__ import annotations

import json
import os
import re
import signal

import psutil

from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox


def test_every_infra_check_passes(deployed: Sandbox) -> None:
    verified = deployed.run("pytest", "tests/infra", "--inventory", deployed.inventory)
    assert verified.returncode == 0, verified.stdout[-4000:]
    assert " skipped" not in verified.stdout


def test_a_second_deploy_restarts_nothing(deployed: Sandbox) -> None:
    before = [(pid, psutil.Process(pid).create_time()) for pid in deployed.pids()]
    done = deployed.up()
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(pid, psutil.Process(pid).create_time()) for pid in deployed.pids()] == before


def test_a_second_deploy_reports_no_change_but_the_wait(deployed: Sandbox) -> None:
    done = deployed.pyinfra("deploy.py", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    operations = json.loads(done.stdout)["results"]["operations"]
    assert len(operations) > 1
    changed = [operation["name"] for operation in operations if operation["success"]]
    assert changed == ["Wait until the cluster commits | Wait until the cluster commits"]


def test_a_changed_setting_restarts_every_replica_and_nothing_else_does(deployed: Sandbox) -> None:
    before = deployed.pids()
    deployed.overrides["LU_CFG_TIGERBEETLE_CACHE_GRID"] = "80MiB"
    done = deployed.up()
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(deployed.pids()).isdisjoint(before)
    told = [line for line in done.stderr.splitlines() if "new settings: replica" in line]
    steps = [re.sub(r".*replica (\d) (\(|is back).*", r"\1 \2", line) for line in told]
    assert sorted(steps[::2]) == ["0 (", "1 (", "2 ("]
    assert steps[1::2] == [step.replace("(", "is back") for step in steps[::2]]


def test_a_dry_run_of_a_new_cluster_makes_nothing(emulator: Sandbox) -> None:
    done = emulator.run("pyinfra", emulator.inventory, "deploy.py", "--dry")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Format replica 2's data file" in done.stderr
    assert not emulator.state_dir.exists()


def test_a_dry_run_of_a_running_cluster_touches_nothing(deployed: Sandbox) -> None:
    before = deployed.pids()
    done = deployed.run("pyinfra", deployed.inventory, "deploy.py", "--dry")
    assert done.returncode == 0, done.stderr[-4000:]
    assert deployed.pids() == before


def test_status_is_healthy_and_says_the_engine(deployed: Sandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "status", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert status["verdict"] == "healthy"
    assert ("EMULATOR" in status["engine_label"]) == (status["engine"] == "emulator")
    assert [r["role"] for r in status["replicas"]].count("primary") == 1


def test_logs_print_every_replica_behind_its_name(deployed: Sandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "logs")
    assert done.returncode == 0
    for index in range(3):
        assert f"replica-{index} | " in done.stdout


def test_a_killed_replica_comes_back_and_the_cluster_is_healthy_again(deployed: Sandbox) -> None:
    victim = deployed.pids()[1]
    os.kill(victim, signal.SIGKILL)

    def is_back() -> tuple[bool, str]:
        done = deployed.run("python", "-m", "cluster", "status")
        return done.returncode == 0 and deployed.pids()[1] != victim, done.stdout

    wait_until(is_back, what="replica 1 to be back", timeout_s=120)
    assert victim not in deployed.pids()


def test_a_stopped_cluster_is_down_and_starts_again_with_its_data(deployed: Sandbox) -> None:
    pids = deployed.pids()
    assert deployed.down().returncode == 0
    assert deployed.down().returncode == 0  # stopping what is stopped is no error
    assert not any(psutil.pid_exists(pid) for pid in pids)
    status = deployed.run("python", "-m", "cluster", "status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["verdict"] == "down"
    written = [deployed.data_file(i).stat().st_ino for i in range(3)]
    assert deployed.up().returncode == 0
    assert [deployed.data_file(i).stat().st_ino for i in range(3)] == written
