"""One deployed cluster per inventory, shared by the tests that leave it up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import Sandbox, sandbox


@pytest.fixture(scope="module")
def deployed(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A cluster that is up, by the command a user types; tests/deploy/engines.py says of what."""
    with sandbox(request.param) as made:
        done = made.up()
        assert done.returncode == 0, done.stderr[-4000:]
        yield made


@pytest.fixture
def emulator() -> Iterator[Sandbox]:
    """An emulator sandbox where nothing has been deployed yet."""
    with sandbox("inventories/emulator.py") as made:
        yield made
