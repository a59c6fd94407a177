"""One cluster in Docker per engine, shared by the tests that leave it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.sandbox import DockerSandbox, docker_sandbox, has_base

ENGINES = [
    pytest.param("emulator", id="emulator"),
    pytest.param("tigerbeetle", id="tigerbeetle", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=ENGINES)
def deployed(request: pytest.FixtureRequest) -> Iterator[DockerSandbox]:
    """A cluster that is up, by the command a user types."""
    if not has_base(request.param):
        pytest.skip(f"no base image of the {request.param} is here")
    with docker_sandbox(request.param) as made:
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made


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
        done = made.make("compose-tb-init")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made
