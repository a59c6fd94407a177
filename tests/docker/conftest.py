"""Clusters in Docker: shared by the tests that leave them running, or a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster import config
from cluster.config import PREFIX
from tests.docker.sandbox import DockerSandbox, docker_sandbox, needs_emulator


@pytest.fixture(scope="module")
def deployed() -> Iterator[DockerSandbox]:
    """The emulator in Docker, up by the command a user types.

    Its memlock limit is the configured one, whether or not this engine may raise limits.
    """
    needs_emulator()
    with docker_sandbox() as made:
        made.overrides[f"{PREFIX}MEMLOCK"] = "-1"
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made


@pytest.fixture(scope="session")
def emulator_image() -> str:
    """The emulator's own image, built."""
    needs_emulator()
    with docker_sandbox() as made:
        return f"{made.environ[f'{PREFIX}CUSTOM_IMAGE']}:{config.load().release}"


@pytest.fixture
def sandbox() -> Iterator[DockerSandbox]:
    """The emulator in Docker, nothing deployed yet."""
    needs_emulator()
    with docker_sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[DockerSandbox]:
    """The emulator in Docker, up, for tests that leave it up."""
    needs_emulator()
    with docker_sandbox() as made:
        done = made.call("compose-tb", "init")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made
