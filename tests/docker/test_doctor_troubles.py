"""More of the doctor's troubles, each made for real: of the machine, of a replica, of the server.

What would break this machine for everybody is made for the doctor alone, in a mount namespace: a
small file system in the place of the engine's, and a sysctl's file that says what ours does not.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY, config
from cluster.checks import observe
from cluster.config import PREFIX
from cluster.runtimes import docker_engine
from tests.docker.patient import findings, until_found
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox, has_base

pytestmark = [pytest.mark.docker]


@pytest.fixture(scope="module")
def formatted() -> Iterator[DockerSandbox]:
    """Genuine data files; nothing runs, and no test starts a server that gets as far as memory."""
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the tigerbeetle is here")
    with docker_sandbox("tigerbeetle") as made:
        for action in ("build", "format"):
            done = made.make(f"compose-tb-{action}")
            assert done.returncode == 0, done.stderr[-2000:]
        yield made


@pytest.fixture
def genuine(formatted: DockerSandbox) -> Iterator[DockerSandbox]:
    """Its first replica is what a test breaks; the container is removed afterwards."""
    with formatted.having():
        yield formatted
    docker("rm", "--force", *formatted.names)


def start(sandbox: DockerSandbox, service: str = "tigerbeetle-0", override: str = "") -> str:
    """``docker compose up`` of one service, changed by Compose's own means; what went wrong."""
    file = sandbox.directory / "override.yaml"
    file.write_text(override or "services: {}")
    done = sandbox.run(
        "docker",
        "compose",
        "-f",
        "docker-compose.tb.yaml",
        "-f",
        str(file),
        "--env-file",
        "./env/tigerbittle.env",
        "up",
        "--detach",
        "--no-build",
        service,
    )
    return done.stderr if done.returncode else ""


# --- This machine -------------------------------------------------------------------------------


def found_with_mount(sandbox: DockerSandbox, mount: str) -> dict[str, str]:
    """What the doctor finds where ``mount``, a shell line, holds for it alone."""
    doctor = f"{mount} && exec {sys.executable} -m cluster doctor --json"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", doctor],
        cwd=REPOSITORY,
        env=sandbox.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    return {f["key"]: f["text"] for f in json.loads(done.stdout)["findings"]}


def test_a_machine_without_the_memory_that_is_configured(genuine: DockerSandbox) -> None:
    settings = {f"{PREFIX}CACHE_GRID": "4096GiB", f"{PREFIX}MEMORY_LIMIT": "5000GiB"}
    text = findings(genuine, **settings)["memory"]
    assert "free for 3 replicas to start, found" in text
    assert f"lower {PREFIX}CACHE_GRID" in text


def test_io_uring_that_is_switched_off(sandbox: DockerSandbox, tmp_path: Path) -> None:
    if not observe.IO_URING_SYSCTL.exists():
        pytest.skip("this kernel cannot switch io_uring off")
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


# --- A replica's container ----------------------------------------------------------------------


@pytest.fixture
def scripted(sandbox: DockerSandbox, emulator_image: str) -> Iterator[DockerSandbox]:
    """The emulator's image, whose server is a shell script: the container's variable SCRIPT."""
    name = f"{sandbox.project}-emulator"
    release = config.load().release
    (sandbox.directory / "server").write_text('#!/bin/sh\neval "$SCRIPT"\n')
    base = f"FROM {emulator_image}\n"
    (sandbox.directory / "Dockerfile").write_text(f"{base}COPY --chmod=755 server /tigerbeetle\n")
    built = docker("build", "--network=none", f"--tag={name}:{release}", str(sandbox.directory))
    assert built.returncode == 0, built.stderr
    sandbox.overrides[f"{PREFIX}CUSTOM_IMAGE"] = name
    yield sandbox
    docker("rm", "--force", *sandbox.names)
    docker("rmi", "--force", f"{name}:{release}")


def having_script(script: str, more: str = "") -> str:
    return f"services: {{tigerbeetle-0: {{environment: {{SCRIPT: '{script}'}}{more}}}}}"


def test_a_server_that_ends_again_and_again(scripted: DockerSandbox) -> None:
    assert start(scripted, override=having_script("exit 3")) == ""
    text = until_found(scripted, "restarting")
    assert "exit code 3" in text
    assert f"docker logs {scripted.names[0]}" in text


def test_a_replica_that_does_not_listen_yet(scripted: DockerSandbox) -> None:
    assert start(scripted, override=having_script("sleep 100")) == ""
    assert "wait: up to a minute" in until_found(scripted, "starting")


def test_a_replica_that_never_listens(scripted: DockerSandbox) -> None:
    impatient = ", healthcheck: {interval: 1s, retries: 1, start_period: 0s}"
    assert start(scripted, override=having_script("sleep 100", impatient)) == ""
    text = until_found(scripted, "unhealthy")
    assert f"make compose-tb-logs CONTAINER={scripted.names[0]}" in text


def test_a_port_that_was_taken_after_the_checks(sandbox: DockerSandbox) -> None:
    with socket.create_server(("127.0.0.1", sandbox.ports[0])):
        assert "address already in use" in start(sandbox)
        found = findings(sandbox)
    assert "another program listens on a port that a replica publishes" in found["port-taken"]


def test_a_limit_that_the_engine_refused(sandbox: DockerSandbox) -> None:
    if sandbox.environ[f"{PREFIX}MEMLOCK"] == "-1":
        pytest.skip("this engine grants any memlock limit")
    sandbox.overrides[f"{PREFIX}MEMLOCK"] = "-1"
    assert "rlimit" in start(sandbox)
    assert "8388608" in until_found(sandbox, "rlimit")


# --- In the genuine server's words --------------------------------------------------------------


def test_a_data_file_that_the_server_may_not_open(genuine: DockerSandbox) -> None:
    assert genuine.in_volume(0, "chown -R 0:0 /data").returncode == 0
    try:
        assert start(genuine) == ""
        assert "-R 10001:10001 /data" in until_found(genuine, "owner")
    finally:
        assert genuine.in_volume(0, "chown -R 10001:10001 /data").returncode == 0


def test_a_container_without_the_capability_to_lock(genuine: DockerSandbox) -> None:
    assert start(genuine, override="services: {tigerbeetle-0: {cap_add: !reset []}}") == ""
    assert "cap_add: [IPC_LOCK]" in until_found(genuine, "no-ipc-lock")


def test_a_data_file_that_another_process_holds(genuine: DockerSandbox) -> None:
    holder = f"{genuine.project}-holder"
    image = f"tigerbeetle-custom:{config.load().release}"
    held = docker(
        "run",
        "--detach",
        f"--name={holder}",
        "--network=none",
        "--entrypoint=flock",
        f"--volume={genuine.project}_tigerbeetle-data-0:/data",
        image,
        "/data/0_0.tigerbeetle",
        "sleep",
        "100",
    )
    assert held.returncode == 0, held.stderr
    try:
        assert start(genuine) == ""
        assert "docker ps --filter volume=VOLUME" in until_found(genuine, "locked-file")
    finally:
        docker("rm", "--force", holder)


def test_a_host_name_that_reached_the_server(genuine: DockerSandbox) -> None:
    command = "[start, '--addresses=db:3000,db:3001,db:3002', /data/0_0.tigerbeetle]"
    assert start(genuine, override=f"services: {{tigerbeetle-0: {{command: {command}}}}}") == ""
    assert f"correct {PREFIX}ADDRESSES" in until_found(genuine, "bad-address")


def test_a_disk_too_small_for_the_data_files_that_are_missing(genuine: DockerSandbox) -> None:
    """The last one on these data files: it removes one."""
    volume = f"{genuine.project}_tigerbeetle-data-2"
    assert docker("volume", "rm", volume).returncode == 0
    root = docker_engine.info()["DockerRootDir"]
    text = found_with_mount(genuine, f"mount -t tmpfs -o size=64m none {root}")["disk"]
    assert f"expected 1.25 GiB free in {root} for 1 data files, found 0.1 GiB" in text
    assert "disk" not in findings(genuine)  # the file system itself has room


def test_a_volume_too_small_for_a_data_file() -> None:
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the tigerbeetle is here")
    with docker_sandbox("tigerbeetle") as small:
        assert small.make("compose-tb-build").returncode == 0
        made = docker(
            "volume",
            "create",
            "--opt=type=tmpfs",
            "--opt=device=tmpfs",
            "--opt=o=size=64m,uid=10001,gid=10001,mode=700",
            f"{small.project}_tigerbeetle-data-0",
        )
        assert made.returncode == 0, made.stderr
        done = small.make("compose-tb-format")
        assert done.returncode == 2
        assert "the disk is full. Fix: free space" in done.stderr
