"""An emulator in this process, watched: what holds before long, what it has warned of."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import pytest

PATIENCE_S = 200.0


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds; what was waited for is in the failing line."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def warned(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """The warnings of the emulator that say so, oldest first."""
    said = [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("tigerbeetle_emulator.")
    ]
    return [each for each in said if re.search(words, each)]
