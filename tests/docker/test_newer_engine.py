"""Under an engine of 25 or newer, whose own profile refuses io_uring: ours lets the server run.

The engine is Debian 13's, in a container of the one that is here (`.ci/provision-docker newer`
makes its image); containers are started in it by its own socket.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from cluster.runtimes import diagnoses
from cluster.tigerbeetle import waiting
from tests.docker.sandbox import docker, has_base
from tests.docker.test_profile import FORMAT, PROFILE, genuine, run_with

IMAGE = "engine-local:trixie"
NAME = f"ws-test-{os.getpid()}-newer-engine"
STARTS_WITHIN_S = 600
pytestmark = [pytest.mark.docker]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DOCKER_HOST of a newer engine that has the server's image."""
    if docker("image", "inspect", IMAGE).returncode != 0:
        pytest.skip("no newer engine: .ci/provision-docker newer")
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the genuine server: .ci/provision-docker base")
    shared = tmp_path_factory.mktemp("newer")
    host = f"unix://{shared}/docker.sock"
    started = docker(
        "run",
        "--detach",
        "--rm",
        f"--name={NAME}",
        "--network=none",
        "--cap-add=ALL",
        "--cap-drop=SYS_RESOURCE",  # this machine may not have it either
        "--security-opt=seccomp=unconfined",
        "--security-opt=systempaths=unconfined",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "--volume=/var/lib/docker",
        f"--volume={shared}:{shared}",
        "--entrypoint=tini",
        IMAGE,
        "--",
        "dockerd",
        f"--host={host}",
        "--bridge=none",
        "--iptables=false",
    )
    assert started.returncode == 0, started.stderr

    def observe() -> tuple[bool, str]:
        done = docker("--host", host, "info")
        last = docker("logs", "--tail=1", NAME)
        return done.returncode == 0, last.stderr or last.stdout

    try:
        waiting.wait_until(observe, what="the newer engine", timeout_s=STARTS_WITHIN_S)
        saved = subprocess.Popen(["docker", "save", genuine()], stdout=subprocess.PIPE)
        with saved:
            loading = ["docker", "--host", host, "load"]
            subprocess.run(loading, stdin=saved.stdout, check=True, capture_output=True)
        yield host
    finally:
        docker("rm", "--force", "--volumes", NAME)


@pytest.fixture
def there(newer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands go to the newer engine."""
    monkeypatch.setenv("DOCKER_HOST", newer)


@pytest.mark.usefixtures("there")
class TestUnderANewerEngine:
    def test_it_is_one(self) -> None:
        version = json.loads(docker("version", "--format={{json .Server.Version}}").stdout)
        assert int(version.partition(".")[0]) >= 25

    def test_its_own_profile_refuses_io_uring_and_the_doctor_knows_the_words(self) -> None:
        done = run_with("default", genuine(), FORMAT)
        assert "error: PermissionDenied" in done.stderr
        known = diagnoses.of_text(done.stderr)
        assert known is not None
        assert known.key == "io-uring"

    @pytest.mark.parametrize("profile", [str(PROFILE), "unconfined"], ids=["ours", "unconfined"])
    def test_the_server_formats(self, profile: str) -> None:
        done = run_with(profile, genuine(), FORMAT)
        assert done.returncode == 0, done.stderr
        assert "formatted: cluster=0" in done.stderr

    def test_the_server_starts_and_listens_under_ours(self) -> None:
        start = "start --development --cache-grid=64MiB --addresses=127.0.0.1:3000 /data/x"
        script = f"/tigerbeetle {FORMAT} && exec /tigerbeetle {start}"
        name = "ws-test-server"
        begun = docker(
            "run",
            "--detach",
            f"--name={name}",
            "--network=none",
            "--user=0",
            "--tmpfs=/data",
            "--cap-drop=ALL",
            "--cap-add=IPC_LOCK",
            f"--security-opt=seccomp={PROFILE}",
            "--entrypoint=tini",
            genuine(),
            "--",
            "sh",
            "-c",
            script,
        )
        assert begun.returncode == 0, begun.stderr

        def observe() -> tuple[bool, str]:
            said = docker("logs", name).stderr
            return "listening on" in said, said[-300:]

        try:
            waiting.wait_until(observe, what="the server to listen", timeout_s=STARTS_WITHIN_S)
        finally:
            docker("rm", "--force", name)
