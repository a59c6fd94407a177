"""The doctor's troubles in the words of the server that is started: a genuine one, or a script.

One replica at a time, and it fails before it takes the cluster's memory. The data files are one
cluster's, formatted once: what a test damages of them, it puts back. The words that they read are
recorded in tests/unit/test_readiness.py; the long ones see that the server still says them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster import config
from cluster.config import PREFIX
from cluster.runtimes import diagnoses, docker_engine
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.patient import SHOWS_WITHIN_S, findings, until_failed, until_found
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox, found_with_mount, has_base

pytestmark = [pytest.mark.docker]
NO_BASE = "no base image of the genuine server: .ci/provision-docker base"
FILE = "/data/0_0.tigerbeetle"


@pytest.fixture(scope="module")
def formatted() -> Iterator[DockerSandbox]:
    """Genuine data files; at most one server gets as far as memory."""
    if not has_base("tigerbeetle"):
        pytest.skip(NO_BASE)
    with docker_sandbox("tigerbeetle", running=1) as made:
        done = made.call("compose-tb", "format")
        assert done.returncode == 0, done.stderr[-2000:]
        yield made


@pytest.fixture
def genuine(formatted: DockerSandbox) -> Iterator[DockerSandbox]:
    """Its first replica is what a test breaks; the container is removed afterwards."""
    with formatted.having():
        yield formatted
    docker("rm", "--force", *formatted.names)


@pytest.fixture
def without_file(genuine: DockerSandbox) -> Iterator[DockerSandbox]:
    """Its first data file is gone; afterwards it is put back."""
    assert genuine.in_volume(0, f"mv {FILE} /data/kept").returncode == 0
    yield genuine
    docker("rm", "--force", *genuine.names)
    assert genuine.in_volume(0, f"mv /data/kept {FILE}").returncode == 0


# --- A container --------------------------------------------------------------------------------


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


def failing(sandbox: DockerSandbox, key: str, override: str = "", **environ: str) -> str:
    """Start replica 0 alone, with what keeps it from starting; what is found."""
    sandbox.overrides.update(environ)
    assert sandbox.start(override=override) == ""
    until_failed(sandbox)
    return until_found(sandbox, key)


def having_script(script: str, more: str = "") -> str:
    return f"services: {{tigerbeetle-0: {{environment: {{SCRIPT: '{script}'}}{more}}}}}"


def test_a_server_that_ends_again_and_again(scripted: DockerSandbox) -> None:
    text = failing(scripted, "restarting", having_script("exit 3"))
    assert "exit code 3" in text
    assert f"docker logs {scripted.names[0]}" in text


def test_a_replica_that_does_not_listen_yet(scripted: DockerSandbox) -> None:
    patient = ", healthcheck: {start_period: 3600s}"
    assert scripted.start(override=having_script("sleep infinity", patient)) == ""
    assert "wait: up to a minute" in until_found(scripted, "starting")


def test_a_replica_that_never_listens(scripted: DockerSandbox) -> None:
    impatient = ", healthcheck: {interval: 1s, retries: 1, start_period: 0s}"
    assert scripted.start(override=having_script("sleep infinity", impatient)) == ""
    text = until_found(scripted, "unhealthy")
    assert f"make compose-tb-logs CONTAINER={scripted.names[0]}" in text


def said(sandbox: DockerSandbox) -> str:
    """All that replica 0 has logged."""
    done = docker("logs", sandbox.names[0])
    return done.stdout + done.stderr


# --- The genuine server -------------------------------------------------------------------------


def test_io_uring_refused_by_a_profile(genuine: DockerSandbox) -> None:
    profile = json.loads((config.ENV_FILE.parent.parent / config.load().seccomp).read_text())
    profile["syscalls"] = [s for s in profile["syscalls"] if "io_uring_setup" not in s["names"]]
    narrow = genuine.directory / "narrow.json"
    narrow.write_text(json.dumps(profile))
    text = failing(genuine, "io-uring", **{f"{PREFIX}SECCOMP": str(narrow)})
    assert f"{PREFIX}SECCOMP" in text


def test_a_data_file_that_is_gone(without_file: DockerSandbox) -> None:
    assert "recover" in failing(without_file, "unformatted")
    assert "replica 0: expected a data file" in findings(without_file)["data-files"]


@pytest.mark.long
def test_a_data_file_without_a_superblock(genuine: DockerSandbox) -> None:
    keep = f"dd if={FILE} of=/data/superblock bs=96k count=1"
    wipe = f"dd if=/dev/zero of={FILE} bs=96k count=1 conv=notrunc"
    assert genuine.in_volume(0, f"{keep} && {wipe}").returncode == 0
    try:
        assert "never format" in failing(genuine, "superblock")
        assert docker("stop", genuine.names[0]).returncode == 0  # then its file can be read
        assert "do not format over it" in findings(genuine)["data-files"]
    finally:
        docker("rm", "--force", *genuine.names)
        put_back = f"dd if=/data/superblock of={FILE} bs=96k conv=notrunc && rm /data/superblock"
        assert genuine.in_volume(0, put_back).returncode == 0


@pytest.mark.long
def test_a_data_file_of_another_replica(without_file: DockerSandbox) -> None:
    other = f"--volume={without_file.project}_tigerbeetle-data-1:/other:ro"
    copy = f"cp -p --sparse=always /other/0_1.tigerbeetle {FILE}"
    assert without_file.in_volume(0, copy, other).returncode == 0
    assert without_file.start() == ""
    # It takes its memory first, so Docker starts it anew at once: no time to see it in between.
    wait_until(
        lambda: ("AddressNotAvailable" in (told := said(without_file)), told[-200:]),
        what="the server to fail",
        timeout_s=SHOWS_WITHIN_S,
    )
    known = diagnoses.of_text(said(without_file))
    assert known is not None
    assert known.key == "exchanged-file"
    assert "another replica's" in str(known)
    assert docker("stop", without_file.names[0]).returncode == 0  # then its file can be read
    found = findings(without_file)["data-files"]
    assert "expected the data file of cluster 0, replica 0 of 3, found that of" in found


@pytest.mark.long
def test_a_data_file_that_the_server_may_not_open(genuine: DockerSandbox) -> None:
    assert genuine.in_volume(0, "chown -R 0:0 /data").returncode == 0
    try:
        assert "-R 10001:10001 /data" in failing(genuine, "owner")
    finally:
        assert genuine.in_volume(0, "chown -R 10001:10001 /data").returncode == 0


@pytest.mark.long
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
        FILE,
        "sleep",
        "infinity",
    )
    assert held.returncode == 0, held.stderr
    try:
        assert "docker ps --filter volume=VOLUME" in failing(genuine, "locked-file")
    finally:
        docker("rm", "--force", holder)


@pytest.mark.long
def test_a_container_without_the_capability_to_lock(genuine: DockerSandbox) -> None:
    uncapable = "services: {tigerbeetle-0: {cap_add: !reset []}}"
    assert "cap_add: [IPC_LOCK]" in failing(genuine, "no-ipc-lock", uncapable)


def test_a_container_without_any_capability(genuine: DockerSandbox) -> None:
    image = f"tigerbeetle-custom:{config.load().release}"
    done = docker("run", "--rm", "--cap-drop=ALL", image, "version")
    assert done.returncode != 0
    known = diagnoses.of_text(done.stdout + done.stderr)
    assert known is not None
    assert known.key == "no-ipc-lock"


@pytest.mark.long
def test_memory_that_cannot_be_locked_and_a_second_server_on_one_file(
    genuine: DockerSandbox,
) -> None:
    """On the base image, whose server has no file capability."""
    release = config.load().release
    name = f"{genuine.project}-base"
    docker("tag", f"{config.load().image}:{release}", f"{name}:{release}")
    genuine.overrides[f"{PREFIX}CUSTOM_IMAGE"] = name
    try:
        genuine.overrides[f"{PREFIX}MEMLOCK"] = "8388608"
        assert genuine.start() == ""
        assert "file capability" in until_found(genuine, "mlock")
        words = f"/tigerbeetle start --addresses=4000,4001,4002 {FILE}"
        second = docker("exec", genuine.names[0], *words.split())
        known = diagnoses.of_text(second.stdout + second.stderr)
        assert known is not None
        assert known.key == "locked-file"
    finally:
        docker("rm", "--force", genuine.names[0])
        docker("rmi", f"{name}:{release}")


@pytest.mark.long
def test_a_host_name_that_reached_the_server(genuine: DockerSandbox) -> None:
    command = f"[start, '--addresses=db:3000,db:3001,db:3002', {FILE}]"
    override = f"services: {{tigerbeetle-0: {{command: {command}}}}}"
    assert f"correct {PREFIX}ADDRESSES" in failing(genuine, "bad-address", override)


def test_a_machine_without_the_memory_that_is_configured(genuine: DockerSandbox) -> None:
    settings = {f"{PREFIX}CACHE_GRID": "4096GiB", f"{PREFIX}MEMORY_LIMIT": "5000GiB"}
    text = findings(genuine, **settings)["memory"]
    assert "of memory for 3 replicas, found" in text
    assert f"lower {PREFIX}CACHE_GRID" in text


# --- A disk that is too small -------------------------------------------------------------------


@pytest.fixture
def empty() -> Iterator[DockerSandbox]:
    """A genuine cluster that has no data files yet, and gets none."""
    if not has_base("tigerbeetle"):
        pytest.skip(NO_BASE)
    with docker_sandbox("tigerbeetle", running=0) as made:
        yield made


def test_a_disk_too_small_for_the_data_files_that_are_missing(empty: DockerSandbox) -> None:
    root = docker_engine.info()["DockerRootDir"]
    text = found_with_mount(empty, f"mount -t tmpfs -o size=64m none {root}")["disk"]
    assert f"expected 3.75 GiB free in {root} for 3 data files, found 0.1 GiB" in text
    assert "disk" not in findings(empty)  # the file system itself has room


def test_a_volume_too_small_for_a_data_file(empty: DockerSandbox) -> None:
    made = docker(
        "volume",
        "create",
        "--opt=type=tmpfs",
        "--opt=device=tmpfs",
        "--opt=o=size=64m,uid=10001,gid=10001,mode=700",
        f"{empty.project}_tigerbeetle-data-0",
    )
    assert made.returncode == 0, made.stderr
    done = empty.call("compose-tb", "format")
    assert done.returncode == 1
    assert "the disk is full. Fix: free space" in done.stderr
