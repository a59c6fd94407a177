"""`make status` for replicas in Docker: each state has its exit code, and its JSON its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.config import PREFIX
from cluster.health.status import Status
from tests.docker.sandbox import DockerSandbox, docker, pause

pytestmark = [pytest.mark.docker]
HEALTHY, DEGRADED, BAD_CONFIGURATION, DOWN, UNKNOWN = 0, 1, 2, 3, 4


def asked(sandbox: DockerSandbox, **environ: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer, which must keep the schema."""
    with sandbox.having(**environ):
        done = sandbox.run("python", "-m", "cluster", "status", "--json")
    Status.model_validate_json(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


@pytest.fixture
def whole(running: DockerSandbox) -> Iterator[DockerSandbox]:
    """All three run before; and after what a test breaks."""
    yield running
    docker("unpause", *running.names)
    docker("start", *running.names)
    assert running.make("compose-tb-up").returncode == 0


def test_all_that_commit_are_healthy(running: DockerSandbox) -> None:
    code, found = asked(running)
    assert (code, found["verdict"]) == (HEALTHY, "healthy")
    assert [r["address"] for r in found["replicas"]] == [f"127.0.0.1:{p}" for p in running.ports]


def test_one_that_was_killed_degrades_it(whole: DockerSandbox) -> None:
    assert docker("kill", whole.names[1]).returncode == 0
    code, found = asked(whole)
    assert (code, found["verdict"]) == (DEGRADED, "degraded")
    assert [r["process"] for r in found["replicas"]] == ["RUNNING", "EXITED", "RUNNING"]


def test_one_that_is_paused_degrades_it(whole: DockerSandbox) -> None:
    pause(whole.names[2])
    code, found = asked(whole)
    assert (code, found["reason"]) == (DEGRADED, "replica 2 paused")


def test_all_stopped_are_down(whole: DockerSandbox) -> None:
    assert docker("stop", *whole.names).returncode == 0
    code, found = asked(whole)
    assert (code, found["verdict"], found["reason"]) == (DOWN, "down", "no port answers")


def test_an_engine_that_does_not_answer_is_unknown(running: DockerSandbox) -> None:
    code, found = asked(running, DOCKER_HOST="tcp://127.0.0.1:1")
    assert (code, found["verdict"], found["replicas"]) == (UNKNOWN, "unknown", [])


def test_a_bad_configuration_is_neither(running: DockerSandbox) -> None:
    with running.having(**{f"{PREFIX}0_PORT": "x"}):
        done = running.run("python", "-m", "cluster", "status", "--json")
    assert (done.returncode, done.stdout) == (BAD_CONFIGURATION, "")
    assert f"{PREFIX}0_PORT: expected a port" in done.stderr
