"""Which engines a test of ``deployed`` is about.

What only replication shows is proved on both at once; what the genuine server merely repeats is
left to the long tests where it is.
"""

from __future__ import annotations

import pytest

_EMULATOR = pytest.param("inventories/emulator.py", id="emulator")


def _deployed(*genuine_marks: pytest.MarkDecorator) -> pytest.MarkDecorator:
    marks = (pytest.mark.genuine, *genuine_marks)
    genuine = pytest.param("inventories/process.py", id="process", marks=marks)
    return pytest.mark.parametrize("deployed", [_EMULATOR, genuine], indirect=True, scope="module")


on_each_engine = _deployed()
on_each_engine_in_the_long_tests = _deployed(pytest.mark.long)
