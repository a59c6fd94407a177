"""`make restart` under load: nothing is lost, and nothing fails. A genuine cluster of its own."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.clusters import sandbox
from tests.deploy.under_load import workload


@pytest.mark.genuine
def test_a_restart_under_load_loses_nothing_and_fails_nothing(tmp_path: Path) -> None:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        with workload(made, tmp_path) as seen:
            begun = time.monotonic()
            done = made.run("make", "restart", timeout_s=300)
            assert done.returncode == 0, done.stderr[-4000:]
            took_s = time.monotonic() - begun
    print(
        f"restart under load: {took_s:.0f} s, longest gap {seen.longest_gap_s:.1f} s, "
        f"{len(seen.operations)} operations"
    )
    assert seen.verdict == 0, seen.checked
    assert seen.unanswered == []
    assert len(re.findall(r"restart: replica \d \(", done.stderr)) == 3
