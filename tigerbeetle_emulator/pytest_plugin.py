"""A pytest fixture for wallets' own test suites; loaded by pytest wherever this is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .embedded import Emulator


@pytest.fixture
def tigerbeetle_emulator() -> Iterator[Emulator]:
    """A fresh TigerBeetle emulator: `.address` and `.cluster_id` are what a client needs."""
    from .embedded import run

    with run() as emulator:
        yield emulator
