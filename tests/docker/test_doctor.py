"""Each trouble is made for real: the doctor names it, and the status counts what it costs.

In the emulator's cluster; tests/docker/test_doctor_server.py has what a genuine server says. What
follows from a container's state alone is told in tests/unit/test_readiness.py too: long here. What
would break this machine for everybody is made for the doctor alone, in a mount namespace: a
sysctl's file that says what ours does not.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cluster import config
from cluster.checks import observe
from cluster.config import PREFIX
from tests.docker.patient import findings, mended, status, until_found, until_well
from tests.docker.sandbox import MEMLOCK_FALLBACK, DockerSandbox, docker, found_with_mount, pause

pytestmark = [pytest.mark.docker]
HEALTHY, DEGRADED, BAD_CONFIGURATION, DOWN, UNKNOWN = 0, 1, 2, 3, 4


def test_nothing_is_found_where_nothing_is_wrong(running: DockerSandbox) -> None:
    until_well(running)
    done = running.make("doctor")
    assert done.returncode == 0
    assert done.stdout.startswith("nothing found; canary: committed")
    code, found = status(running)
    assert (code, found["verdict"]) == (HEALTHY, "healthy")
    assert [r["address"] for r in found["replicas"]] == [f"127.0.0.1:{p}" for p in running.ports]


# --- This machine -------------------------------------------------------------------------------


def test_no_engine(running: DockerSandbox) -> None:
    nobody = "tcp://127.0.0.1:1"
    found = findings(running, DOCKER_HOST=nobody)
    assert list(found) == ["engine"]
    assert "expected an engine that answers" in found["engine"]
    code, seen = status(running, DOCKER_HOST=nobody)
    assert (code, seen["verdict"], seen["replicas"]) == (UNKNOWN, "unknown", [])


def test_no_image(sandbox: DockerSandbox) -> None:
    name = f"{PREFIX}CUSTOM_IMAGE"
    assert "compose-tb-build" in findings(sandbox, **{name: "absent-emulator"})["no-image"]


def test_unformatted_volumes(sandbox: DockerSandbox) -> None:
    assert "compose-tb-format" in findings(sandbox)["unformatted"]


@pytest.mark.parametrize("command", [("doctor",), ("status", "--json")], ids=lambda c: c[0])
def test_a_host_name_among_the_addresses(running: DockerSandbox, command: tuple[str, ...]) -> None:
    with running.having(**{f"{PREFIX}0_IP": "tigerbeetle-0"}):
        done = running.call(*command)
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, "")
    assert f"{PREFIX}0_IP: expected an IPv4 address" in done.stderr


def test_a_bad_port(running: DockerSandbox) -> None:
    with running.having(**{f"{PREFIX}0_PORT": "x"}):
        done = running.call("status", "--json")
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, "")
    assert f"{PREFIX}0_PORT: expected a port" in done.stderr


def test_a_taken_port(sandbox: DockerSandbox) -> None:
    with socket.create_server(("127.0.0.1", sandbox.ports[1])):
        text = findings(sandbox)["ports"]
    assert f"{PREFIX}1_PORT: expected 127.0.0.1:{sandbox.ports[1]} to be free" in text


def test_a_port_that_was_taken_after_the_checks(sandbox: DockerSandbox) -> None:
    with socket.create_server(("127.0.0.1", sandbox.ports[0])):
        assert "address already in use" in sandbox.start()
        found = findings(sandbox)
    assert "another program listens on a port that a replica publishes" in found["port-taken"]


def test_a_taken_subnet(sandbox: DockerSandbox) -> None:
    subnet = sandbox.environ[f"{PREFIX}SUBNET"]
    name = f"{sandbox.project}_intruder"
    assert docker("network", "create", f"--subnet={subnet}", name).returncode == 0
    assert name in findings(sandbox)["subnet"]


def test_a_taken_container_name(sandbox: DockerSandbox, emulator_image: str) -> None:
    made = docker("create", f"--name={sandbox.names[2]}", emulator_image)
    assert made.returncode == 0, made.stderr
    assert "one made by hand" in findings(sandbox)["names"]


def test_a_memlock_limit_that_the_engine_may_not_grant_stops_docker_s_own_commands_alone(
    sandbox: DockerSandbox,
) -> None:
    if sandbox.environ[f"{PREFIX}MEMLOCK"] == "-1":
        pytest.skip("this engine grants any memlock limit: one without CAP_SYS_RESOURCE does not")
    sandbox.overrides[f"{PREFIX}MEMLOCK"] = "-1"
    assert "memlock" not in findings(sandbox)
    assert "rlimit" in sandbox.start()
    assert "make compose-tb-up" in until_found(sandbox, "rlimit")
    assert sandbox.call("compose-tb", "format").returncode == 2  # that container is still there
    assert sandbox.call("compose-tb", "down").returncode == 0
    assert sandbox.call("compose-tb", "format").returncode == 0
    assert sandbox.call("compose-tb", "up").returncode == 0
    limits = [sandbox.inspect(index)["HostConfig"]["Ulimits"] for index in range(3)]
    assert limits == [[{"Name": "memlock", "Hard": MEMLOCK_FALLBACK, "Soft": MEMLOCK_FALLBACK}]] * 3
    assert "stale" not in findings(sandbox)


def test_io_uring_that_is_switched_off(sandbox: DockerSandbox, tmp_path: Path) -> None:
    if not observe.IO_URING_SYSCTL.exists():
        pytest.skip("this kernel cannot switch io_uring off: one of 6.6 or newer can")
    (tmp_path / "off").write_text("2\n")
    mount = f"mount --bind {tmp_path}/off {observe.IO_URING_SYSCTL}"
    text = found_with_mount(sandbox, mount)["kernel"]
    assert "kernel.io_uring_disabled: expected 0, found 2. Fix: sysctl -w" in text


def test_more_replicas_configured_than_the_compose_file_has(sandbox: DockerSandbox) -> None:
    network = sandbox.environ[f"{PREFIX}0_IP"].rpartition(".")[0]
    more = {i: (f"{network}.1{i}", str(sandbox.ports[0] + i)) for i in (3, 4, 5)}
    addresses = [sandbox.environ[f"{PREFIX}ADDRESSES"], *(":".join(m) for m in more.values())]
    settings = {f"{PREFIX}ADDRESSES": ",".join(addresses)}
    for index, (ip, port) in more.items():
        settings |= {
            f"{PREFIX}{index}_IP": ip,
            f"{PREFIX}{index}_PORT": port,
            f"{PREFIX}{index}_CONTAINER_NAME": f"{sandbox.project}-{index}",
        }
    text = findings(sandbox, **settings)["model"]
    assert "tigerbeetle-5 of env/tigerbittle.env, found tigerbeetle-0, " in text


# --- A replica ----------------------------------------------------------------------------------


def test_data_of_another_cluster(running: DockerSandbox) -> None:
    text = findings(running, **{f"{PREFIX}CLUSTER_ID": "7"})["data-files"]
    assert "expected no data file but 7_0.tigerbeetle, found 0_0.tigerbeetle" in text


@pytest.mark.long
def test_a_volume_of_another_owner(running: DockerSandbox) -> None:
    assert running.in_volume(0, "chown -R 0:0 /data").returncode == 0
    try:
        text = findings(running)["data-files"]
        assert "expected it to be owned by uid 10001, found 0" in text
    finally:
        assert running.in_volume(0, "chown -R 10001:10001 /data").returncode == 0


def test_a_replica_that_was_killed_by_hand(running: DockerSandbox) -> None:
    with mended(running, 1):
        assert docker("kill", running.names[1]).returncode == 0
        found = findings(running)
        assert "exit code 137" in found["stopped"]
        assert "no-quorum" not in found
        code, seen = status(running)
        assert (code, seen["verdict"]) == (DEGRADED, "degraded")
        assert [r["process"] for r in seen["replicas"]] == ["RUNNING", "EXITED", "RUNNING"]


def test_a_lost_quorum_and_all_lost(running: DockerSandbox) -> None:
    with mended(running):
        assert docker("stop", *running.names[1:]).returncode == 0
        assert "1 of 3 replicas run, and 2 are needed" in findings(running)["no-quorum"]
        assert docker("stop", running.names[0]).returncode == 0
        code, seen = status(running)
        assert (code, seen["verdict"], seen["reason"]) == (DOWN, "down", "no port answers")


def test_a_removed_container(running: DockerSandbox) -> None:
    with mended(running):
        assert docker("rm", "--force", running.names[2]).returncode == 0
        assert "compose-tb-up" in findings(running)["no-container"]


def test_a_paused_replica(running: DockerSandbox) -> None:
    with mended(running, 2):
        pause(running.names[2])
        assert "docker unpause" in findings(running)["paused"]
        code, seen = status(running)
        assert (code, seen["reason"]) == (DEGRADED, "replica 2 paused")


def test_a_replica_whose_process_is_stopped_is_wedged_though_its_check_succeeds(
    running: DockerSandbox,
) -> None:
    tini = running.inspect(1)["State"]["Pid"]
    server = int(Path(f"/proc/{tini}/task/{tini}/children").read_text().split()[0])
    os.kill(server, signal.SIGSTOP)
    try:
        found = findings(running)
        assert "its port is open, and it does not answer" in found["wedged"]
        assert "unhealthy" not in found
        ip = running.environ[f"{PREFIX}1_IP"]
        check = docker("exec", running.names[1], "nc", "-zv", ip, str(running.ports[1]))
        assert check.returncode == 0
    finally:
        os.kill(server, signal.SIGCONT)


def test_a_replica_cut_off_from_its_network(running: DockerSandbox) -> None:
    with mended(running, 0):
        network = f"{running.project}_tigerbeetle-net"
        assert docker("network", "disconnect", network, running.names[0]).returncode == 0
        assert "not on the network" in findings(running)["wrong-ip"]


@pytest.mark.long
def test_an_ip_that_another_container_took(running: DockerSandbox, emulator_image: str) -> None:
    with mended(running, 0):
        assert docker("stop", running.names[0]).returncode == 0
        thief = f"{running.project}-thief"
        taken = docker(
            "run",
            "--detach",
            f"--name={thief}",
            f"--network={running.project}_tigerbeetle-net",
            f"--ip={running.environ[f'{PREFIX}0_IP']}",
            "--entrypoint=sleep",
            emulator_image,
            "infinity",
        )
        assert taken.returncode == 0, taken.stderr
        try:
            done = running.call("compose-tb", "up")
            assert done.returncode == 2
            ip = running.environ[f"{PREFIX}0_IP"]
            held = (
                f"{PREFIX}0_IP: expected {ip} to be free for {running.names[0]}, found it held by"
            )
            assert f"{held} {thief}. Fix: docker network disconnect " in done.stderr
            advice = findings(running)["addresses"].partition("Fix: ")[2].partition(",")[0]
            assert subprocess.run(shlex.split(advice), timeout=60).returncode == 0
            assert running.call("compose-tb", "up").returncode == 0
        finally:
            assert docker("rm", "--force", thief).returncode == 0


def test_settings_that_are_not_in_force(running: DockerSandbox) -> None:
    text = findings(running, **{f"{PREFIX}CACHE_GRID": "80MiB"})["stale"]
    assert "does not run as configured" in text


@pytest.mark.long
def test_a_replica_without_enough_memory(running: DockerSandbox) -> None:
    with mended(running, 0):
        assert docker("stop", running.names[0]).returncode == 0
        limited = docker("update", "--memory=8m", "--memory-swap=8m", running.names[0])
        assert limited.returncode == 0, limited.stderr
        docker("start", running.names[0])
        assert f"{PREFIX}MEMORY_LIMIT" in until_found(running, "out-of-memory")


@pytest.mark.long
def test_an_image_without_netcat(running: DockerSandbox) -> None:
    release = config.load().release
    name = f"{running.project}-emulator"
    assert docker("tag", f"tigerbeetle-emulator:{release}", f"{name}:{release}").returncode == 0
    often = "services: {tigerbeetle-0: {healthcheck: {interval: 1s}}}"
    try:
        with mended(running, 0), running.having(**{f"{PREFIX}CUSTOM_IMAGE": name}):
            assert running.start(override=often) == ""
            assert "compose-tb-build" in until_found(running, "no-netcat")
    finally:
        docker("rmi", f"{name}:{release}")
