"""The backups' timers, as systemd itself reads them, that it is told of them, and what they owe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.operate.backup import schedule
from cluster.operate.backup.retention import Policy
from cluster.refusal import Refusal

PYINFRA = str(Path(sys.executable).parent / "pyinfra")
analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="apt-get install systemd"
)
HOUR_S, DAY_S = 3600, 86400


def units(inventory: str = "inventories/process.py", **changes: object) -> dict[str, str]:
    """File name → content, of both timers."""
    environ = {"BACKUP_DIR": "/srv/back ups", "AWS_SECRET_ACCESS_KEY": "not for a unit"}
    timers = schedule.timers("process", inventory, **(changes or {}))  # type: ignore[arg-type]
    return {name: text for t in timers for name, text in t.units(inventory, environ).items()}


def rendered(inventory: str, repository: Path = REPOSITORY) -> str:
    """The service that takes the backups of this inventory, relative to that directory."""
    text = units(inventory)["tigerbeetle-backup-process.service"]
    return text.replace(str(REPOSITORY), str(repository).replace("%", "%%"))


@analyze
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name, text in units("in ventories/100%.py", keep=Policy(daily=7, weekly=5)).items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "tigerbeetle-" in line]
    assert said == []
    assert len(list(tmp_path.iterdir())) == 4


@analyze
@pytest.mark.parametrize(
    ("calendar", "interval_s"),
    [
        (schedule.NIGHTLY, DAY_S),
        (schedule.WEEKLY, 7 * DAY_S),
        ("*:0/5", 300),
        ("Mon..Fri 02:00", 3 * DAY_S),
        ("*-*-* 08,20:00", 12 * HOUR_S),
    ],
)
def test_the_longest_time_between_two_runs_is_known(calendar: str, interval_s: float) -> None:
    assert schedule.interval_s(calendar) == interval_s


def test_one_is_late_a_while_after_the_next_was_due() -> None:
    assert schedule.late_after_s(DAY_S) / HOUR_S == 30.25
    assert schedule.late_after_s(300) / 60 == 21.25


@analyze
@pytest.mark.parametrize("calendar", ["nightly", "", "25:00", "2020-01-01", "2199-01-01 02:00"])
def test_what_is_no_repeated_time_is_refused(calendar: str) -> None:
    with pytest.raises(Refusal, match="at: expected times that repeat"):
        schedule.interval_s(calendar)


def test_the_services_run_what_a_person_types() -> None:
    found = units("in ventories/100%.py", keep=Policy(daily=7, weekly=5))
    taking = found["tigerbeetle-backup-process.service"]
    of = '"INVENTORY=in ventories/100%%.py"'
    keep = '"KEEP=daily=7 weekly=5"'
    assert f'/usr/bin/env "make" "backup" {of} {keep} "SCHEDULED=yes"\n' in taking
    proving = found["tigerbeetle-verify-process.service"]
    assert f'/usr/bin/env "make" "backup-verify" {of} "SCHEDULED=yes"\n' in proving
    assert f"OnCalendar={schedule.WEEKLY}\n" in found["tigerbeetle-verify-process.timer"]


def test_who_backs_up_often_has_no_replica_stopped_for_it() -> None:
    for often in (True, False):
        taking = units(never_stops=often)["tigerbeetle-backup-process.service"]
        assert ('"WAY=freeze"' in taking) == often


def test_a_run_finds_what_the_environment_has_named_and_no_secret_is_in_a_unit() -> None:
    for name, text in units().items():
        assert ('Environment="BACKUP_DIR=/srv/back ups"\n' in text) == name.endswith("service")
        assert "SECRET" not in text and "not for a unit" not in text
    (plain, _) = schedule.timers("process", "inventories/process.py")
    assert "Environment" not in "".join(plain.units("inventories/process.py", {}).values())


@pytest.mark.parametrize("word", ['a"b', "a\\b", "a%b"])
def test_a_word_cannot_break_out_of_its_quotes(word: str) -> None:
    (plain, _) = schedule.timers("process", "inventories/process.py")
    text = plain.units("inventories/process.py", {"BACKUP_DIR": word})[plain.files[0]]
    written = {'a"b': 'a\\"b', "a\\b": "a\\\\b", "a%b": "a%%b"}[word]
    assert f'Environment="BACKUP_DIR={written}"\n' in text


@pytest.mark.parametrize("name", ["eu.py", "100% e u.py"])
def test_the_timer_of_another_inventory_is_known(tmp_path: Path, name: str) -> None:
    theirs, ours = tmp_path / name, tmp_path / "other.py"
    theirs.touch()
    relative = rendered(name, tmp_path)
    for unit in (relative, rendered(str(theirs)), as_written_before(name, tmp_path)):
        assert schedule.rival(unit, ours) == theirs
        assert schedule.rival(unit, theirs) is None
    theirs.rename(ours)  # it was only moved: its timer is told of the new place
    assert schedule.rival(relative, ours) is None


def as_written_before(name: str, directory: Path) -> str:
    """By releases that had one number to keep, and no timer for proofs."""
    quoted = f'"INVENTORY={name.replace("%", "%%")}"' if " " in name else f"INVENTORY={name}"
    start = f"ExecStart=/usr/bin/env make backup {quoted} KEEP=7"
    return f"[Service]\nWorkingDirectory={directory}\n{start}\nTimeoutStartSec=infinity\n"


@pytest.mark.parametrize("task", ["install", "remove"])
def test_the_timer_of_another_inventory_is_neither_replaced_nor_removed(
    tmp_path: Path, task: str
) -> None:
    (tmp_path / "units").mkdir()
    theirs = tmp_path / "eu.py"
    theirs.touch()
    unit = tmp_path / "units" / "tigerbeetle-backup-emulator.service"
    unit.write_text(rendered(str(theirs)))
    (tmp_path / "install.py").write_text(INSTALL.replace(".install()", f".{task}()"))
    done = installing(tmp_path, "--data=inventory=inventories/emulator.py")
    assert done.returncode != 0
    assert "expected the timer of" in done.stderr
    assert f"found that of {theirs}" in done.stderr
    assert unit.read_text() == rendered(str(theirs))
    assert list((tmp_path / "units").iterdir()) == [unit]


#: As much of systemd as this needs: what it has read, and its timer. It does nothing once `gone`.
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")" || exit
case "$*" in
  *NeedDaemonReload*) ! [ -e read ] || cat units/* | cmp -s - read || echo yes; exit ;;
  *SubState*) for unit in active/*; do echo "Id=${unit#*/}"; echo "SubState=$(cat "$unit")"
    echo; done; exit ;;
  *UnitFileState*) for unit in enabled/*; do echo "Id=${unit#*/}"
    echo "UnitFileState=$(cat "$unit")"; echo; done; exit ;;
esac
[ ! -e gone ] || exit 1
case "$1" in
  daemon-reload) cat units/* >read ;;
  start) echo waiting >"active/$2"; [ -e read ] || cat units/* >read ;;
  enable) echo enabled >"enabled/$2" ;;
  disable) rm "active/$3" "enabled/$3" ;;
esac
"""
INSTALL = """
from pathlib import Path
from tasks import backup_schedule
backup_schedule.UNITS = Path(__file__).parent / "units"
backup_schedule.install()
"""


def installing(
    directory: Path, *data: str, task: str = "install"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYINFRA, "--yes", *data, "@local", str(directory / f"{task}.py")],
        cwd=REPOSITORY,
        env=os.environ
        | {"PATH": f"{directory}:{os.environ['PATH']}", "RECORDS_DIR": str(directory / "records")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory with a systemd of its own."""
    for state in ("units", "active", "enabled"):
        (tmp_path / state).mkdir()
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o700)
    (tmp_path / "install.py").write_text(INSTALL)
    (tmp_path / "remove.py").write_text(INSTALL.replace(".install()", ".remove()"))
    return tmp_path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


TAKING, PROVING = "tigerbeetle-backup-emulator", "tigerbeetle-verify-emulator"
OF_EMULATOR = "--data=inventory=inventories/emulator.py"


@analyze
@pytest.mark.long
def test_an_interrupted_installation_is_finished_by_the_next(machine: Path) -> None:
    def install(keep: str, *, is_interrupted: bool = False) -> str:
        if is_interrupted:
            (machine / "gone").touch()
        done = installing(machine, OF_EMULATOR, f"--data=keep={keep}")
        assert (done.returncode != 0) == is_interrupted, done.stderr
        (machine / "gone").unlink(missing_ok=True)
        return done.stderr

    install("7", is_interrupted=True)
    assert not (machine / "records").exists()  # nothing is late that nobody was told to do
    install("7")
    timers = [f"{TAKING}.timer", f"{PROVING}.timer"]
    assert (names(machine / "active"), names(machine / "enabled")) == (timers, timers)
    install("daily=7 weekly=5", is_interrupted=True)
    assert '"KEEP=last=7"' in (machine / "read").read_text()
    install("daily=7 weekly=5")
    assert '"KEEP=daily=7 weekly=5"' in (machine / "read").read_text()
    assert "No changes" in install("daily=7 weekly=5")


@analyze
@pytest.mark.long
def test_what_timers_owe_is_noted_until_they_are_removed(machine: Path) -> None:
    def noted() -> dict[str, object]:
        (file,) = (machine / "records").rglob("*-expected.json")
        found: dict[str, object] = json.loads(file.read_text())
        return found

    def run(task: str, *data: str) -> None:
        given = (OF_EMULATOR, *(f"--data={each}" for each in data))
        done = installing(machine, *given, task=task)
        assert done.returncode == 0, done.stderr

    run("install", "at=*:0/5")
    first = noted()
    assert '"WAY=freeze"' in (machine / "units" / f"{TAKING}.service").read_text()
    assert (first["backup_s"], first["verify_s"]) == (1275, 1.25 * 7 * DAY_S + 900)
    run("install", "at=*:0/5", "keep=9")
    assert noted() == first  # since then, still
    run("install", "verify=no")
    assert "WAY" not in (machine / "units" / f"{TAKING}.service").read_text()
    assert (noted()["backup_s"], noted()["verify_s"]) == (1.25 * DAY_S + 900, None)
    assert names(machine / "units") == [f"{TAKING}.service", f"{TAKING}.timer"]
    run("remove")
    assert not [*(machine / "records").rglob("*-expected.json")]
    assert names(machine / "units") == names(machine / "active") == []
    run("remove")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("keep=0", "KEEP: expected how many backups"),
        ("keep=daily=x", "KEEP: expected how many backups"),
        pytest.param("at=nightly", "at: expected times that repeat", marks=analyze),
        pytest.param("verify=weakly", "verify: expected times that repeat", marks=analyze),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_written(
    data: str, said: str, machine: Path
) -> None:
    done = installing(machine, OF_EMULATOR, f"--data={data}")
    assert done.returncode != 0
    assert said in done.stderr
    assert names(machine / "units") == []
    assert not (machine / "records").exists()
