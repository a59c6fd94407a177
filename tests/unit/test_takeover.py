"""The shell lines that take a replica over, run here: on a file of a directory, and a stand-in for
a server that holds it as the genuine one does. They can be cut off anywhere, and repeated.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.checks import adoption, foreign
from cluster.checks.adoption import Standing
from cluster.checks.facts import DataFile
from cluster.checks.foreign import File, Found, Note, Process
from cluster.config import servers
from cluster.config.deployment import Deployment
from cluster.runtimes import layout
from cluster.runtimes.systemd import Systemd
from tasks import adopt
from tests.unit.test_rules import fit
from tests.unit.test_servers import env_text


class World:
    """One server's directories: a file in its old place, and the new one."""

    def __init__(self, deployment: Deployment, directory: Path) -> None:
        self.deployment, self.directory = deployment, directory
        self.old = directory / "old" / "0_0.tigerbeetle"
        self.new = Path(layout.data_path(deployment, 0))
        self.started = directory / "started"
        self.old.parent.mkdir()
        self.new.parent.mkdir(parents=True)
        self.old.write_bytes(b"ledger")
        self.inode = self.old.stat().st_ino

    @property
    def files(self) -> dict[str, bytes]:
        """All data files, wherever they are."""
        found = sorted(self.directory.rglob("*.tigerbeetle"))
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}

    @property
    def place(self) -> str:
        """Of the one that there is. Raises AssertionError for another, or a second one."""
        ((path, content),) = self.files.items()
        assert content == b"ledger"
        assert (self.directory / path).stat().st_ino == self.inode
        return path.split("/")[0]

    def process(self, pid: int, **changes: Any) -> Process:
        """As the server's script tells of it."""
        stat = self.old.stat()
        owner = f"{stat.st_uid}:{stat.st_gid}"
        file = File(str(self.old), 6, owner, "644", str(stat.st_ino), "ext2/ext3", "/")
        started = Process(
            pid=pid,
            user="root",
            is_listening=True,
            arguments=("flock", str(self.old), "sleep", "1000"),
            parent_pid=1,
            started_in=str(self.directory),
            file=file,
        )
        return replace(started, **changes)

    def standing(self) -> Standing:
        """Judged anew from what lies there, as a repeated command does; no server runs."""
        marker = Path(foreign.note_path(0))
        note = Note.parse(marker.read_text()) if marker.exists() else None
        noted = None
        if note and Path(note.path).exists():
            inode = str(Path(note.path).stat().st_ino)
            noted = File(note.path, 6, note.owner, note.mode, inode, "ext2/ext3", "/")
        there = (DataFile(self.new.name, 6, b""),) if self.new.exists() else ()
        seen = replace(fit(), data_files=there)
        return adoption.stands(self.deployment, 0, seen, Found(note=note, noted=noted))


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The directories, with lines that tell in place of `systemctl`."""
    env = tmp_path / "production.env"
    env.write_text(env_text())
    said = {"env_file": "x", "runtime": "systemd", "data_dir": f"{tmp_path}/new"}
    deployment = Deployment(
        name="production",
        engine="tigerbeetle",
        runtime="systemd",
        cluster=config.load(env, {}, lambda cluster: None),
        state_dir=tmp_path,
        settings=servers.Settings.model_validate(said),
    )
    world = World(deployment, tmp_path)
    monkeypatch.setattr(layout, "ETC", str(tmp_path))
    monkeypatch.setattr(Systemd, "start", lambda *_: f"echo started >>{world.started}")
    monkeypatch.setattr(Systemd, "stop_all", lambda *_: [f"echo stopped >>{world.started}"])
    monkeypatch.setattr(adopt, "_QUIET_S", 1)
    return world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return made(tmp_path, monkeypatch)


@contextmanager
def held(file: Path, *, deaf: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a data file until it is told to end; ``deaf``: whatever it is told."""
    ignore = "trap '' TERM; " if deaf else ""
    script = f"{ignore}exec 3<'{file}'; flock 3; echo held; exec sleep 1000"
    running = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert running.stdout
        assert running.stdout.readline() == b"held\n"
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def sh(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=600)


def test_a_server_is_stopped_its_file_renamed_and_ours_started(world: World) -> None:
    with held(world.old) as running:
        standing = Standing(0, "foreign", started := world.process(running.pid), started.file)
        done = sh(adopt.take_over(world.deployment, standing))
        assert done.returncode == 0, done.stderr
        assert running.wait(timeout=100) == -signal.SIGTERM
    assert world.place == "new"
    assert world.new.stat().st_mode & 0o777 == 0o600
    assert world.started.read_text() == "started\n"


def test_a_server_that_does_not_end_keeps_its_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "_STOP_TIMEOUT_S", 1)
    with held(world.old, deaf=True) as running:
        standing = Standing(0, "foreign", started := world.process(running.pid), started.file)
        done = sh(adopt.take_over(world.deployment, standing))
        assert done.returncode != 0
        assert "still served, or served again" in done.stderr
        assert running.poll() is None
        note = Note.of(started)
        assert sh(adopt.put_back(world.deployment, 0, note)).returncode == 0
        assert not Path(foreign.note_path(0)).exists()
    assert world.place == "old"
    assert world.started.read_text() == "stopped\n"  # and no second one was started on it


def test_a_server_that_somebody_starts_again_keeps_its_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "_STOP_TIMEOUT_S", 2)
    with held(world.old) as first:
        again = f"kill {first.pid}; (exec 3<'{world.old}'; flock 3; sleep 5) >/dev/null 2>&1 &"
        started = world.process(first.pid)
        line = adopt.take_over(world.deployment, Standing(0, "foreign", started, started.file))
        done = sh(line.replace(started.stop, again))
        assert done.returncode != 0
        assert "served again" in done.stderr
    assert world.place == "old"
    assert not world.started.exists()


def test_a_file_that_lies_in_the_new_place_already_is_never_replaced(world: World) -> None:
    world.new.write_bytes(b"another")
    with held(world.old) as running:
        standing = Standing(0, "foreign", started := world.process(running.pid), started.file)
        done = sh(adopt.take_over(world.deployment, standing))
    assert done.returncode != 0
    assert sorted(world.files.values()) == [b"another", b"ledger"]
    assert world.new.read_bytes() == b"another"
    assert not world.started.exists()


def test_a_file_that_is_served_in_its_new_place_stays_there(world: World) -> None:
    world.old.rename(world.new)
    world.old = world.new
    with held(world.new) as running:
        standing = Standing(0, "foreign", started := world.process(running.pid), started.file)
        assert sh(adopt.take_over(world.deployment, standing)).returncode == 0
    assert world.place == "new"
    assert world.started.read_text() == "started\n"


def test_the_same_place_by_another_name_loses_nothing(world: World) -> None:
    """A data directory that is a link: both paths are one name of the file."""
    world.old.rename(world.old.parent / world.new.name)
    world.new.parent.rmdir()
    world.new.parent.symlink_to(world.old.parent)
    world.old = world.old.parent / world.new.name
    with held(world.old) as running:
        standing = Standing(0, "foreign", started := world.process(running.pid), started.file)
        assert sh(adopt.take_over(world.deployment, standing)).returncode == 0
    assert world.old.read_bytes() == b"ledger"


def test_what_is_put_back_is_as_it_was_and_served_again(world: World) -> None:
    again = f"echo served >>{world.started}"
    world.old.chmod(0o640)
    with held(world.old) as running:
        started = world.process(running.pid)
        sh(adopt.take_over(world.deployment, Standing(0, "foreign", started, started.file)))
    assert world.place == "new"
    note = Note(str(world.old), Note.of(started).owner, "640", str(world.inode), again)
    done = sh(adopt.put_back(world.deployment, 0, note))
    assert done.returncode == 0, done.stderr
    assert world.place == "old"
    assert world.old.stat().st_mode & 0o777 == 0o640
    assert world.started.read_text() == "started\nstopped\nserved\n"
    assert world.standing().state == "missing"  # nothing is left of the adoption


def test_what_was_started_by_hand_is_started_again_by_its_own_line(world: World) -> None:
    told = world.directory / "pid"
    script = f"exec 3<'{world.old}'; flock 3; echo $$ >'{told}'; exec sleep 1000"
    note = Note.of(world.process(0, arguments=("sh", "-c", script)))
    assert sh(adopt.put_back(world.deployment, 0, note)).returncode == 0
    deadline = time.monotonic() + 100
    while not (told.exists() and told.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int(told.read_text())
    try:
        assert subprocess.run(["flock", "--nonblock", world.old, "true"], check=False).returncode
        assert os.getsid(pid) == pid  # whoever has logged in may leave
    finally:
        os.kill(pid, signal.SIGKILL)
    assert world.place == "old"


def steps(line: str) -> list[str]:
    """A script's beginnings, one longer than the other; those that are no script are left out."""
    lines = line.splitlines()
    cuts = ["\n".join(lines[:count]) for count in range(1, len(lines))]
    return [cut for cut in cuts if subprocess.run(["sh", "-nc", cut]).returncode == 0]


def test_cut_off_after_any_line_it_is_finished_by_repeating_it(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    started = world.process(0, container=("x", "no", "false"))
    foreign_one = Standing(0, "foreign", started, started.file)
    line = adopt.take_over(world.deployment, foreign_one).replace(started.stop, "true")
    cuts = [
        *steps(line),
        # Within the rename: both names are there.
        line.replace('|| rm -- "$from"', '|| exit 1 # rm "$from"'),
    ]
    assert len(cuts) > 5
    states = []
    for cut in cuts:
        sh(cut)
        assert set(world.files.values()) == {b"ledger"}
        standing = world.standing()
        states.append(standing.state)
        # Before the note is written, its server still runs: it is found again.
        standing = foreign_one if standing.state == "missing" else standing
        again = adopt.take_over(world.deployment, standing).replace(started.stop, "true")
        done = sh(again)
        assert done.returncode == 0, f"{cut}\n{done.stderr}"
        assert world.place == "new"
        assert world.started.read_text().endswith("started\n")
        world.new.rename(world.old)
        Path(foreign.note_path(0)).unlink()
    assert states[0] == "missing"
    assert {"stopped", "moved"} <= set(states)
