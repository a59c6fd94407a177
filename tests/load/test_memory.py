"""An audit and a migration take no more memory for more transfers. Long: two million each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import REPOSITORY

#: What is promised, at any size.
RESIDENT_MIB = 300
TRANSFERS = 2_000_000


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["audit", "migrate"])
def test_two_million_transfers_are_proven_within_300_mib(what: str, tmp_path: Path) -> None:
    """The peak is what the kernel has seen of the process, from its start to its end."""
    made = [sys.executable, "-m", "tests.load.made_up", what, f"--transfers={TRANSFERS}"]
    with subprocess.Popen(
        [*made, "--folder", str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        said = program.stdout.read()
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    print(said)
    assert program.returncode == 0
    (line,) = re.findall(rf"^{what} (\w+): peak", said, re.MULTILINE)
    assert line == "passed"
    assert usage.ru_maxrss / 1024 <= RESIDENT_MIB
