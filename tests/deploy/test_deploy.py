"""What a deploy makes, on each engine; that a second one changes and restarts nothing; restarts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.runtimes import of
from cluster.runtimes.base import Todo
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox
from tests.deploy.decisions import refusal
from tests.deploy.engines import on_each_engine, on_each_engine_in_the_long_tests
from tests.leases import addresses

#: Ten times what a busy machine has taken to start a genuine replica.
BACK_WITHIN_S = 600


def starts(made: Sandbox) -> list[tuple[int, float]]:
    """(pid, start time) of each replica: equal before and after means untouched."""
    return [(pid, psutil.Process(pid).create_time()) for pid in made.pids()]


def await_health(made: Sandbox) -> None:
    def is_healthy() -> tuple[bool, str]:
        done = made.call("status")
        return done.returncode == 0, done.stdout

    wait_until(is_healthy, what="the cluster to be healthy", timeout_s=BACK_WITHIN_S)


def _ended(pids: list[int]) -> tuple[bool, str]:
    """An orphan that has ended is a zombie until the machine's first process looks for it."""
    living = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            status = psutil.Process(pid).status()
            living += [f"{pid} {status}"] if status != psutil.STATUS_ZOMBIE else []
    return not living, ", ".join(living)


# --- What a deploy makes ------------------------------------------------------------------------


@on_each_engine
def test_every_infra_check_passes(deployed: Sandbox) -> None:
    verified = deployed.run("pytest", "tests/infra", "--inventory", deployed.inventory)
    assert verified.returncode == 0, verified.stdout[-4000:]
    assert " skipped" not in verified.stdout
    # Here, and as it was deployed: which way a backup would take.
    assert re.search(r"^backups (freeze|stop) all replicas .*, since ", verified.stdout, re.M)


@on_each_engine
def test_a_second_deploy_restarts_nothing_and_reports_no_change_but_the_wait(
    deployed: Sandbox,
) -> None:
    before = starts(deployed)
    done = deployed.pyinfra("deploy.py", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    assert starts(deployed) == before
    operations = json.loads(done.stdout)["results"]["operations"]
    assert len(operations) > 1
    changed = [operation["name"] for operation in operations if operation["success"]]
    assert changed == ["Wait until the cluster commits | Wait until the cluster commits"]


@on_each_engine_in_the_long_tests
def test_a_changed_setting_restarts_every_replica_and_a_dry_run_of_it_none(
    deployed: Sandbox,
) -> None:
    before = deployed.pids()
    size = deployed.environ["LU_CFG_TIGERBEETLE_CACHE_GRID"]
    deployed.overrides["LU_CFG_TIGERBEETLE_CACHE_GRID"] = "80MiB" if size == "64MiB" else "64MiB"
    dry = deployed.run("pyinfra", deployed.inventory, "deploy.py", "--dry")
    assert dry.returncode == 0, dry.stderr[-4000:]
    assert deployed.pids() == before
    done = deployed.up()
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(deployed.pids()).isdisjoint(before)
    told = [line for line in done.stderr.splitlines() if "new settings: replica" in line]
    steps = [re.sub(r".*replica (\d) (\(|is back).*", r"\1 \2", line) for line in told]
    assert sorted(steps[::2]) == ["0 (", "1 (", "2 ("]
    assert steps[1::2] == [step.replace("(", "is back") for step in steps[::2]]


@on_each_engine_in_the_long_tests
def test_a_rollout_that_stopped_half_way_is_seen_and_a_restart_finishes_it(
    deployed: Sandbox,
) -> None:
    """As if it had been killed when one replica had its new settings: their file has them all."""
    size = deployed.environ["LU_CFG_TIGERBEETLE_CACHE_GRID"]
    deployed.overrides["LU_CFG_TIGERBEETLE_CACHE_GRID"] = "96MiB" if size == "64MiB" else "64MiB"
    with deployed.entered():
        runtime = of(deployed.deployment)
        for path, text in runtime.description(0).items():
            Path(path).write_text(text)
        subprocess.run(["sh", "-c", runtime.renew(1)], check=True, capture_output=True)
        assert runtime.todo({}) == Todo(set(), {0, 2})
    await_health(deployed)
    with (deployed.state_dir / "replica-0" / "replica.log").open("a") as log:
        log.write("thread 7 panic: out of memory\n")
    rows = ("tests/infra/test_settings.py", "tests/infra/test_log.py")
    verified = deployed.run("pytest", *rows, "--inventory", deployed.inventory)
    failed = re.findall(r"^FAILED (\S+)::\w+\[(replica-\d)", verified.stdout, re.MULTILINE)
    assert set(failed) == {(rows[0], "replica-0"), (rows[0], "replica-2"), (rows[1], "replica-0")}
    done = deployed.run("make", "restart")
    assert done.returncode == 0, done.stderr[-4000:]
    verified = deployed.run("pytest", *rows, "--inventory", deployed.inventory)
    assert verified.returncode == 0, verified.stdout  # what it died of before is over
    with deployed.entered():
        assert not runtime.todo({})


def test_a_dry_run_of_a_new_cluster_makes_nothing(emulator: Sandbox) -> None:
    done = emulator.run("pyinfra", emulator.inventory, "deploy.py", "--dry")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Format replica 2's data file" in done.stderr
    assert not emulator.state_dir.exists()


@on_each_engine
def test_status_is_healthy_and_says_the_engine(deployed: Sandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "status", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert status["verdict"] == "healthy"
    assert ("EMULATOR" in status["engine_label"]) == (status["engine"] == "emulator")
    assert [r["role"] for r in status["replicas"]].count("primary") == 1


@on_each_engine
def test_logs_print_every_replica_behind_its_name(deployed: Sandbox) -> None:
    done = deployed.run("python", "-m", "cluster", "logs")
    assert done.returncode == 0
    for index in range(3):
        assert f"replica-{index} | " in done.stdout


@on_each_engine
def test_the_doctor_finds_nothing_where_nothing_is_wrong_and_names_what_is(
    deployed: Sandbox,
) -> None:
    well = deployed.call("doctor", "--inventory", deployed.inventory)
    assert well.returncode == 0, well.stdout
    assert well.stdout.startswith("nothing found; canary: committed")
    deployed.supervise("stop", "replica-2")
    ill = deployed.call("doctor", "--json", "--inventory", deployed.inventory)
    deployed.supervise("start", "replica-2")
    await_health(deployed)
    assert ill.returncode == 1
    found = {f["key"]: f["text"] for f in json.loads(ill.stdout)["findings"]}
    assert f"Fix: make up INVENTORY={deployed.inventory}" in found["stopped"]


@on_each_engine
def test_what_a_running_cluster_cannot_have_is_refused(deployed: Sandbox) -> None:
    """The memory is judged as for genuine replicas: what those that run hold is given back."""
    prefix, before = "LU_CFG_TIGERBEETLE", deployed.pids()
    with deployed.having(**{f"{prefix}_CACHE_GRID": "64GiB", f"{prefix}_MEMORY_LIMIT": "67GiB"}):
        error = refusal(deployed, engine="tigerbeetle")
    assert "memory: expected 198.2 GiB of memory for 3 replicas, found " in error
    assert " that 3 hold. Fix: free some, or lower" in error
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = (deployed.ports[0], port, deployed.ports[2])
        with deployed.having(**addresses(ports)):
            error = refusal(deployed)
    assert f"{prefix}_1_PORT: expected 127.0.0.1:{port} to be free, found pid" in error
    assert deployed.pids() == before


# --- What ends, and comes back ------------------------------------------------------------------


@on_each_engine
def test_a_killed_replica_comes_back_and_the_cluster_is_healthy_again(deployed: Sandbox) -> None:
    victim = deployed.pids()[1]
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: (victim not in deployed.pids(), "not yet"),
        what="replica 1 to be started again",
        timeout_s=BACK_WITHIN_S,
    )
    await_health(deployed)
    assert len(deployed.pids()) == 3


@on_each_engine_in_the_long_tests
def test_a_stopped_cluster_is_down_and_starts_again_with_its_data(deployed: Sandbox) -> None:
    """Stopped though its supervisor is dead, which a deploy refuses to take over."""
    pids = deployed.pids()
    supervisor = psutil.Process(int((deployed.state_dir / "supervisord.pid").read_text()))
    supervisor.kill()
    psutil.wait_procs([supervisor], timeout=BACK_WITHIN_S)
    error = refusal(deployed)
    assert "expected it under its supervisor, found it as pid" in error
    assert f"make down INVENTORY={deployed.inventory}" in error

    assert deployed.down().returncode == 0
    assert deployed.down().returncode == 0  # stopping what is stopped is no error
    wait_until(lambda: _ended(pids), what="every replica to have ended", timeout_s=BACK_WITHIN_S)
    status = deployed.call("status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["verdict"] == "down"
    written = [deployed.data_file(i).stat().st_ino for i in range(3)]
    assert deployed.up().returncode == 0
    assert [deployed.data_file(i).stat().st_ino for i in range(3)] == written


@on_each_engine_in_the_long_tests
def test_a_cluster_whose_supervisor_has_lost_its_socket_is_stopped_all_the_same(
    deployed: Sandbox,
) -> None:
    """As by whatever tidies up temporary files: it still starts again what is killed below it."""
    pids = [int((deployed.state_dir / "supervisord.pid").read_text()), *deployed.pids()]
    (deployed.state_dir / "supervisor.sock").unlink()
    assert "expected it under its supervisor, found it as pid" in refusal(deployed)
    assert deployed.down().returncode == 0
    wait_until(lambda: _ended(pids), what="everything to have ended", timeout_s=BACK_WITHIN_S)
    assert deployed.call("status").returncode == 3
    assert deployed.up().returncode == 0


# --- `make restart`: every replica in turn, the primary last, and never one too many at once -----


def order(said: str) -> list[int]:
    """The replicas in the order in which their turns came, as the command told it."""
    return [int(index) for index in re.findall(r"restart: replica (\d) \(", said)]


def primary_of(made: Sandbox) -> int:
    replicas = json.loads(made.call("status", "--json", "--no-canary").stdout)
    (index,) = [r["index"] for r in replicas["replicas"] if r["role"] == "primary"]
    return int(index)


@on_each_engine_in_the_long_tests
def test_each_replica_is_restarted_once_and_the_primary_last(deployed: Sandbox) -> None:
    before, primary = deployed.pids(), primary_of(deployed)
    done = deployed.run("make", "restart")
    assert done.returncode == 0, done.stderr[-4000:]
    assert set(deployed.pids()).isdisjoint(before)
    took_turns = order(done.stderr)
    assert sorted(took_turns) == [0, 1, 2]
    assert took_turns[-1] == primary
    assert done.stderr.count("canary committed") == 3


@on_each_engine_in_the_long_tests
def test_a_replica_that_is_stopped_is_started_before_any_other_is_touched(
    deployed: Sandbox,
) -> None:
    deployed.supervise("stop", "replica-1")
    done = deployed.pyinfra("tasks.replica.restart")
    assert done.returncode == 0, done.stderr[-4000:]
    assert order(done.stderr)[0] == 1
    assert len(order(done.stderr)) == 3


@pytest.mark.long  # it waits 20 s for them to come back; tests/unit/test_rollout.py does not
@on_each_engine
def test_no_restart_touches_anything_while_two_replicas_are_away(deployed: Sandbox) -> None:
    serving = deployed.pids()[0]
    deployed.supervise("stop", "replica-1", "replica-2")
    try:
        done = deployed.pyinfra("tasks.replica.restart")
        assert done.returncode == 1
        assert "restart: expected a cluster that can spare one replica" in done.stderr
        assert "found: waited 20 s" in done.stderr
        assert "replica 2 stopped" in done.stderr
        assert order(done.stderr) == []
        assert deployed.pids()[0] == serving
    finally:
        deployed.supervise("start", "replica-1", "replica-2")
        await_health(deployed)


def test_a_restart_is_refused_where_nothing_runs(emulator: Sandbox) -> None:
    done = emulator.pyinfra("tasks.replica.restart")
    assert done.returncode == 1
    assert "expected every replica under its supervisor, found 0 of 3" in done.stderr
    assert not emulator.state_dir.exists()
