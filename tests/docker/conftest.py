"""One cluster in Docker per engine, shared by the tests that leave it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster import config
from cluster.config import PREFIX
from tests.docker.sandbox import DockerSandbox, best_engine, docker_sandbox, has_base


@pytest.fixture(scope="module")
def deployed(takes_memory: None) -> Iterator[DockerSandbox]:
    """A cluster that is up, by the command a user types: a genuine one where it can be had.

    Its memlock limit is the configured one, whether or not this engine may raise limits.
    """
    with docker_sandbox(best_engine()) as made:
        made.overrides[f"{PREFIX}MEMLOCK"] = "-1"
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made


@pytest.fixture(scope="session")
def emulator_image() -> str:
    """The emulator's own image, built."""
    if not has_base("emulator"):
        pytest.skip("no emulator base image: .ci/provision-docker base")
    with docker_sandbox() as made:
        return f"{made.environ[f'{PREFIX}CUSTOM_IMAGE']}:{config.load().release}"


@pytest.fixture
def sandbox() -> Iterator[DockerSandbox]:
    """The emulator in Docker, nothing deployed yet."""
    if not has_base("emulator"):
        pytest.skip("no emulator base image: .ci/provision-docker base")
    with docker_sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[DockerSandbox]:
    """The emulator in Docker, up, for tests that leave it up."""
    if not has_base("emulator"):
        pytest.skip("no emulator base image: .ci/provision-docker base")
    with docker_sandbox() as made:
        done = made.call("compose-tb", "init")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made
