"""pytest fixtures for wallets' own test suites; loaded by pytest wherever this is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .embedded import Emulator

EXPORT = "tigerbeetle_emulator_export"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one setting, for pytest's own configuration file."""
    parser.addini(EXPORT, "the emulator's fixtures set TB_ADDRESS", type="bool", default=False)


def _emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """On free ports: each process of pytest-xdist has its own."""
    from .launch import run

    with run(export=bool(request.config.getini(EXPORT))) as emulator:
        yield emulator


@pytest.fixture
def tigerbeetle_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A fresh TigerBeetle emulator: `.address` and `.cluster_id` are what a client needs."""
    yield from _emulator(request)


@pytest.fixture(scope="module")
def tigerbeetle_emulator_module(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """One TigerBeetle emulator for all tests of a module."""
    yield from _emulator(request)


@pytest.fixture(scope="session")
def tigerbeetle_emulator_session(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """One TigerBeetle emulator for all tests of a session: where a shared client belongs."""
    yield from _emulator(request)


@pytest.fixture
def tigerbeetle_empty_ledger(tigerbeetle_emulator_session: Emulator) -> Emulator:
    """The session's emulator as if new: empty, no faults. Clients that are connected stay so."""
    from .server.faults import Faults

    emulator = tigerbeetle_emulator_session
    emulator.start()  # in case that the test before has stopped it
    emulator.faults = Faults()
    emulator.reset()
    return emulator
