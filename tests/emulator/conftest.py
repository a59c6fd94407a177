"""The genuine server, started once for all tests that compare with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import config
from cluster.tigerbeetle import binary
from tests.emulator import servers


@pytest.fixture(scope="session")
def genuine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ServerProcess]:
    """A genuine single replica on a free port; the test is skipped where there is no binary."""
    found = binary.find_tigerbeetle(config.load())
    if not found:
        pytest.skip("no genuine tigerbeetle in TIGERBEETLE_BIN or on PATH: make download")
    with servers.genuine(str(found), tmp_path_factory.mktemp("genuine")) as server:
        yield server


@pytest.fixture
def emulator_process(tmp_path: Path) -> Iterator[servers.ServerProcess]:
    """An emulator process with a data file of its own."""
    with servers.emulator(tmp_path) as server:
        yield server
