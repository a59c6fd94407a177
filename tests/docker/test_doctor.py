"""Each trouble is made for real, and the doctor names it; a healthy cluster has none."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import config
from cluster.config import PREFIX
from cluster.runtimes import diagnoses
from tests.docker.patient import findings, until_found, until_well
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox, has_base, pause

pytestmark = [pytest.mark.docker]


@pytest.fixture
def healthy(running: DockerSandbox) -> Iterator[DockerSandbox]:
    """A cluster that is made whole again afterwards."""
    yield running
    done = running.compose("up", "--detach", "--force-recreate", "--no-build")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def genuine() -> Iterator[DockerSandbox]:
    """Genuine data files, formatted; nothing runs, so little memory is taken."""
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the tigerbeetle is here")
    with docker_sandbox("tigerbeetle") as made:
        for action in ("build", "format"):
            done = made.make(f"compose-tb-{action}")
            assert done.returncode == 0, done.stderr[-2000:]
        yield made


def test_nothing_is_found_where_nothing_is_wrong(running: DockerSandbox) -> None:
    done = running.make("doctor")
    assert done.returncode == 0
    assert done.stdout.startswith("nothing found; canary: committed")


def test_no_engine(running: DockerSandbox) -> None:
    found = findings(running, DOCKER_HOST="tcp://127.0.0.1:1")
    assert list(found) == ["engine"]
    assert "expected an engine that answers" in found["engine"]


def test_no_image(sandbox: DockerSandbox) -> None:
    name = f"{PREFIX}CUSTOM_IMAGE"
    assert "compose-tb-build" in findings(sandbox, **{name: "absent-emulator"})["no-image"]


def test_unformatted_volumes(sandbox: DockerSandbox) -> None:
    assert "compose-tb-format" in findings(sandbox)["unformatted"]


def test_a_host_name_among_the_addresses(running: DockerSandbox) -> None:
    done = running.make("doctor", **{f"{PREFIX}0_IP": "tigerbeetle-0"})
    assert done.returncode == 2
    assert f"{PREFIX}0_IP: expected an IPv4 address" in done.stderr


def test_a_taken_port(sandbox: DockerSandbox) -> None:
    with socket.create_server(("127.0.0.1", sandbox.ports[1])):
        text = findings(sandbox)["ports"]
    assert f"{PREFIX}1_PORT: expected 127.0.0.1:{sandbox.ports[1]} to be free" in text


def test_a_taken_subnet(sandbox: DockerSandbox) -> None:
    subnet = sandbox.environ[f"{PREFIX}SUBNET"]
    name = f"{sandbox.project}_intruder"
    assert docker("network", "create", f"--subnet={subnet}", name).returncode == 0
    assert name in findings(sandbox)["subnet"]


def test_a_taken_container_name(sandbox: DockerSandbox, emulator_image: str) -> None:
    made = docker("create", f"--name={sandbox.names[2]}", emulator_image)
    assert made.returncode == 0, made.stderr
    assert "one made by hand" in findings(sandbox)["names"]


def test_a_memlock_limit_that_the_engine_may_not_grant(sandbox: DockerSandbox) -> None:
    if sandbox.environ[f"{PREFIX}MEMLOCK"] == "-1":
        pytest.skip("this engine grants any memlock limit")
    assert "CAP_SYS_RESOURCE" in findings(sandbox, **{f"{PREFIX}MEMLOCK": "-1"})["memlock"]


def test_data_of_another_cluster(running: DockerSandbox) -> None:
    text = findings(running, **{f"{PREFIX}CLUSTER_ID": "7"})["data-files"]
    assert "expected no data file but 7_0.tigerbeetle, found 0_0.tigerbeetle" in text


def test_a_volume_of_another_owner(healthy: DockerSandbox) -> None:
    assert healthy.in_volume(0, "chown -R 0:0 /data").returncode == 0
    text = findings(healthy)["data-files"]
    assert "expected it to be owned by uid 10001, found 0" in text
    assert healthy.in_volume(0, "chown -R 10001:10001 /data").returncode == 0


def test_a_replica_that_was_killed_by_hand(healthy: DockerSandbox) -> None:
    assert docker("kill", healthy.names[1]).returncode == 0
    found = findings(healthy)
    assert "exit code 137" in found["stopped"]
    assert "no-quorum" not in found


def test_a_lost_quorum(healthy: DockerSandbox) -> None:
    assert docker("stop", healthy.names[1], healthy.names[2]).returncode == 0
    assert "1 of 3 replicas run, and 2 are needed" in findings(healthy)["no-quorum"]


def test_a_removed_container(healthy: DockerSandbox) -> None:
    assert docker("rm", "--force", healthy.names[2]).returncode == 0
    assert "compose-tb-up" in findings(healthy)["no-container"]


def test_a_paused_replica(healthy: DockerSandbox) -> None:
    pause(healthy.names[2])
    assert "docker unpause" in findings(healthy)["paused"]


def test_a_replica_whose_process_is_stopped_is_wedged_though_its_check_succeeds(
    running: DockerSandbox,
) -> None:
    until_well(running)  # a container that only just starts does not listen yet
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


def test_a_replica_cut_off_from_its_network(healthy: DockerSandbox) -> None:
    until_well(healthy)  # a container that only just starts is not on its network yet
    network = f"{healthy.project}_tigerbeetle-net"
    assert docker("network", "disconnect", network, healthy.names[0]).returncode == 0
    assert "not on the network" in findings(healthy)["wrong-ip"]


def test_an_ip_that_another_container_took(healthy: DockerSandbox, emulator_image: str) -> None:
    assert docker("stop", healthy.names[0]).returncode == 0
    thief = f"{healthy.project}-thief"
    taken = docker(
        "run",
        "--detach",
        f"--name={thief}",
        f"--network={healthy.project}_tigerbeetle-net",
        f"--ip={healthy.environ[f'{PREFIX}0_IP']}",
        "--entrypoint=sleep",
        emulator_image,
        "60",
    )
    assert taken.returncode == 0, taken.stderr
    done = healthy.make("compose-tb-up")
    assert done.returncode == 2
    assert "another container holds the replica's IP" in done.stderr
    assert "make compose-tb-down" in findings(healthy)["ip-taken"]
    assert docker("rm", "--force", thief).returncode == 0


def test_settings_that_are_not_in_force(running: DockerSandbox) -> None:
    text = findings(running, **{f"{PREFIX}CACHE_GRID": "80MiB"})["stale"]
    assert "does not run as configured" in text


def test_a_replica_without_enough_memory(healthy: DockerSandbox) -> None:
    assert docker("stop", healthy.names[0]).returncode == 0
    limited = docker("update", "--memory=8m", "--memory-swap=8m", healthy.names[0])
    assert limited.returncode == 0, limited.stderr
    docker("start", healthy.names[0])
    assert f"{PREFIX}MEMORY_LIMIT" in until_found(healthy, "out-of-memory")


def test_an_image_without_netcat(sandbox: DockerSandbox) -> None:
    release = config.load().release
    name = f"{sandbox.project}-emulator"
    assert docker("tag", f"tigerbeetle-emulator:{release}", f"{name}:{release}").returncode == 0
    sandbox.overrides[f"{PREFIX}CUSTOM_IMAGE"] = name
    try:
        started = sandbox.compose("up", "--detach", "--no-build", "tigerbeetle-0")
        assert started.returncode == 0, started.stderr
        docker("stop", sandbox.names[0])
        assert sandbox.in_volume(0, "chown -R 10001:10001 /data").returncode == 0
        sandbox.compose(
            "run",
            "--rm",
            "--entrypoint=/tigerbeetle",
            "tigerbeetle-0",
            "format",
            "--cluster=0",
            "--replica=0",
            "--replica-count=3",
            "/data/0_0.tigerbeetle",
        )
        docker("start", sandbox.names[0])
        assert "compose-tb-build" in until_found(sandbox, "no-netcat")
    finally:
        docker("rmi", f"{name}:{release}")


# What only a genuine server says. One replica at a time, and it fails before it takes memory.


def restarting(genuine: DockerSandbox, key: str, **environ: str) -> str:
    """Start replica 0 alone, with settings that keep it from starting; what is found."""
    genuine.overrides.update(environ)
    started = genuine.compose("up", "--detach", "--no-build", "tigerbeetle-0")
    assert started.returncode == 0, started.stderr
    return until_found(genuine, key)


def test_io_uring_refused_by_a_profile(genuine: DockerSandbox) -> None:
    profile = json.loads((config.ENV_FILE.parent.parent / config.load().seccomp).read_text())
    profile["syscalls"] = [s for s in profile["syscalls"] if "io_uring_setup" not in s["names"]]
    narrow = genuine.directory / "narrow.json"
    narrow.write_text(json.dumps(profile))
    text = restarting(genuine, "io-uring", **{f"{PREFIX}SECCOMP": str(narrow)})
    assert f"{PREFIX}SECCOMP" in text


def test_a_data_file_that_is_gone(genuine: DockerSandbox) -> None:
    assert genuine.in_volume(0, "rm /data/0_0.tigerbeetle").returncode == 0
    assert "recover" in restarting(genuine, "unformatted")
    assert "replica 0: expected a data file" in findings(genuine)["data-files"]


def test_a_data_file_without_a_superblock(genuine: DockerSandbox) -> None:
    wiped = "dd if=/dev/zero of=/data/0_0.tigerbeetle bs=96k count=1 conv=notrunc"
    assert genuine.in_volume(0, wiped).returncode == 0
    assert "never format" in restarting(genuine, "superblock")
    assert docker("stop", genuine.names[0]).returncode == 0  # then its file can be read
    assert "do not format over it" in findings(genuine)["data-files"]


def test_a_data_file_of_another_replica(genuine: DockerSandbox) -> None:
    assert genuine.in_volume(0, "rm /data/0_0.tigerbeetle").returncode == 0
    formatted = genuine.compose(
        "run",
        "--rm",
        "tigerbeetle-0",
        "format",
        "--cluster=0",
        "--replica=1",
        "--replica-count=3",
        "/data/0_0.tigerbeetle",
    )
    assert formatted.returncode == 0, formatted.stderr
    assert "another replica's" in restarting(genuine, "exchanged-file")
    assert docker("stop", genuine.names[0]).returncode == 0  # then its file can be read
    found = findings(genuine)["data-files"]
    assert "expected the data file of cluster 0, replica 0 of 3, found that of" in found


def test_a_container_without_the_capability(genuine: DockerSandbox) -> None:
    image = f"tigerbeetle-custom:{config.load().release}"
    done = docker("run", "--rm", "--cap-drop=ALL", image, "version")
    assert done.returncode != 0
    known = diagnoses.of_text(done.stdout + done.stderr)
    assert known is not None
    assert known.key == "no-ipc-lock"


def test_memory_that_cannot_be_locked_and_a_second_server_on_one_file(
    genuine: DockerSandbox,
) -> None:
    """On the base image, whose server has no file capability."""
    release = config.load().release
    name = f"{genuine.project}-base"
    docker("tag", f"{config.load().image}:{release}", f"{name}:{release}")
    genuine.overrides[f"{PREFIX}CUSTOM_IMAGE"] = name
    genuine.overrides[f"{PREFIX}CACHE_GRID"] = "64MiB"
    try:
        text = restarting(genuine, "memlock-zero", **{f"{PREFIX}MEMLOCK": "0"})
        assert f"{PREFIX}MEMLOCK" in text
        text = restarting(genuine, "mlock", **{f"{PREFIX}MEMLOCK": "8388608"})
        assert "file capability" in text
        second = genuine.run(
            "docker",
            "exec",
            genuine.names[0],
            "/tigerbeetle",
            "start",
            "--addresses=4000,4001,4002",
            "/data/0_0.tigerbeetle",
        )
        known = diagnoses.of_text(second.stdout + second.stderr)
        assert known is not None
        assert known.key == "locked-file"
    finally:
        docker("rm", "--force", genuine.names[0])
        docker("rmi", f"{name}:{release}")
