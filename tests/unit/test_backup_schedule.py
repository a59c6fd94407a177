"""The nightly backup's units, as systemd itself reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

from cluster import REPOSITORY
from tasks.backup_schedule import NIGHTLY

VALUES = {
    "inventory": "inventories/process.py",
    "repository": str(REPOSITORY),
    "backup_dir": "/srv/back ups",
    "calendar": NIGHTLY,
    "keep": 7,
}


def rendered(kind: str, **changes: object) -> str:
    text = (REPOSITORY / "files" / "backup" / f"backup.{kind}.j2").read_text()
    return Environment(undefined=StrictUndefined).from_string(text).render(VALUES | changes)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        (tmp_path / f"tigerbeetle-backup-process.{kind}").write_text(rendered(kind) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "tigerbeetle-backup" in line]
    assert said == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_systemd_understands_when() -> None:
    command = ["systemd-analyze", "calendar", NIGHTLY]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_the_service_runs_what_a_person_types() -> None:
    assert "make backup INVENTORY=inventories/process.py KEEP=7" in rendered("service")
    assert 'Environment="BACKUP_DIR=/srv/back ups"' in rendered("service")
    assert "BACKUP_DIR" not in rendered("service", backup_dir="")
