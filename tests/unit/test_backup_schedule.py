"""The nightly backup's units, as systemd itself reads them, and that it is told of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

from cluster import REPOSITORY
from tasks import backup_schedule
from tasks.backup_schedule import NIGHTLY

PYINFRA = str(Path(sys.executable).parent / "pyinfra")
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
    assert 'make backup "INVENTORY=inventories/process.py" KEEP=7' in rendered("service")
    odd = rendered("service", inventory="in ventories/100%.py")
    assert 'make backup "INVENTORY=in ventories/100%%.py" KEEP=7' in odd
    assert 'Environment="BACKUP_DIR=/srv/back ups"' in rendered("service")
    assert "BACKUP_DIR" not in rendered("service", backup_dir="")


@pytest.mark.parametrize("name", ["eu.py", "100% e u.py"])
def test_the_timer_of_another_inventory_is_known(tmp_path: Path, name: str) -> None:
    theirs, ours = tmp_path / name, tmp_path / "other.py"
    theirs.touch()
    relative = rendered("service", inventory=name, repository=str(tmp_path))
    for unit in (relative, rendered("service", inventory=str(theirs))):
        assert backup_schedule.rival(unit, ours) == theirs
        assert backup_schedule.rival(unit, theirs) is None
    before = relative.replace('"INVENTORY=eu.py"', "INVENTORY=eu.py")  # as it was written before
    assert backup_schedule.rival(before, ours) == theirs
    theirs.rename(ours)  # it was only moved: its timer is told of the new place
    assert backup_schedule.rival(relative, ours) is None


@pytest.mark.parametrize("task", ["install", "remove"])
def test_the_timer_of_another_inventory_is_neither_replaced_nor_removed(
    tmp_path: Path, task: str
) -> None:
    (tmp_path / "units").mkdir()
    theirs = tmp_path / "eu.py"
    theirs.touch()
    unit = tmp_path / "units" / "tigerbeetle-backup-emulator.service"
    unit.write_text(rendered("service", inventory=str(theirs)))
    (tmp_path / "install.py").write_text(INSTALL.replace(".install()", f".{task}()"))
    done = installing(tmp_path, "--data=inventory=inventories/emulator.py")
    assert done.returncode != 0
    assert "expected the timer of" in done.stderr
    assert f"found that of {theirs}" in done.stderr
    assert unit.read_text() == rendered("service", inventory=str(theirs))
    assert list((tmp_path / "units").iterdir()) == [unit]


#: As much of systemd as this needs: what it has read, and its timer. It does nothing once `gone`.
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")" || exit
case "$*" in
  *NeedDaemonReload*) ! [ -e read ] || cat units/* | cmp -s - read || echo yes; exit ;;
  *SubState*) echo Id=tigerbeetle-backup-emulator.timer; echo "SubState=$(cat active)"; exit ;;
  *UnitFileState*) echo Id=tigerbeetle-backup-emulator.timer
    echo "UnitFileState=$(cat enabled)"; exit ;;
esac
[ ! -e gone ] || exit 1
case "$1" in
  daemon-reload) cat units/* >read ;;
  start) echo waiting >active; [ -e read ] || cat units/* >read ;;
  enable) echo enabled >enabled ;;
esac
"""
INSTALL = """
from pathlib import Path
from tasks import backup_schedule
backup_schedule.UNITS = Path(__file__).parent / "units"
backup_schedule.install()
"""


def installing(directory: Path, *data: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYINFRA, "--yes", *data, "@local", str(directory / "install.py")],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_an_interrupted_installation_is_finished_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o700)
    (tmp_path / "install.py").write_text(INSTALL)
    for state in ("active", "enabled"):
        (tmp_path / state).touch()

    def install(keep: int, *, is_interrupted: bool = False) -> str:
        if is_interrupted:
            (tmp_path / "gone").touch()
        inventory = "--data=inventory=inventories/emulator.py"
        done = installing(tmp_path, inventory, f"--data=keep={keep}")
        assert (done.returncode != 0) == is_interrupted, done.stderr
        (tmp_path / "gone").unlink(missing_ok=True)
        return done.stderr

    install(7, is_interrupted=True)
    install(7)
    told = {state: (tmp_path / state).read_text() for state in ("active", "enabled")}
    assert told == {"active": "waiting\n", "enabled": "enabled\n"}
    install(9, is_interrupted=True)
    assert "KEEP=7" in (tmp_path / "read").read_text()
    install(9)
    assert "KEEP=9" in (tmp_path / "read").read_text()
    assert "No changes" in install(9)
