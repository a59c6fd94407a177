"""`make restart` under load: nothing is lost, and nothing fails. A genuine cluster of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clusters import sandbox
from tests.deploy.under_load import workload


@pytest.mark.genuine
def test_a_restart_under_load_loses_nothing_and_fails_nothing(tmp_path: Path) -> None:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        with workload(made, tmp_path) as seen:
            done = made.run("make", "restart")
            assert done.returncode == 0, done.stderr[-4000:]
    print(f"longest gap {seen.longest_gap_s:.1f} s, {len(seen.operations)} operations")
    assert seen.verdict == 0, seen.checked
    assert seen.unanswered == []
    assert sorted(re.findall(r"restart: replica (\d) \(", done.stderr)) == ["0", "1", "2"]
