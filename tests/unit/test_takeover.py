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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import DeployError

from cluster import config
from cluster.checks import adoption, foreign
from cluster.checks.adoption import Standing
from cluster.checks.facts import DataFile
from cluster.checks.foreign import File, Found, Note, Process
from cluster.config import servers
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.health.health import ReplicaHealth, Unhealthy
from cluster.operate import rollout
from cluster.operate.adopt import Survey
from cluster.runtimes import layout
from cluster.runtimes.systemd import Systemd
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong
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
        marker = Path(foreign.note_path(self.deployment, 0))
        note = Note.parse(marker.read_text()) if marker.exists() else None
        noted = None
        if note and Path(note.path).exists():
            inode = str(Path(note.path).stat().st_ino)
            noted = File(note.path, 6, note.owner, note.mode, inode, "ext2/ext3", "/")
        there = (DataFile(self.new.name, 6, b""),) if self.new.exists() else ()
        seen = replace(fit(), data_files=there)
        return adoption.stands(self.deployment, 0, seen, Found(note=note, noted=noted))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
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
    made = World(deployment, tmp_path)
    monkeypatch.setattr(Systemd, "start", lambda *_: f"echo started >>{made.started}")
    monkeypatch.setattr(Systemd, "stop_all", lambda *_: [f"echo stopped >>{made.started}"])
    monkeypatch.setattr(adopt, "_QUIET_S", 1)
    return made


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
        assert not Path(foreign.note_path(world.deployment, 0)).exists()
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
        Path(foreign.note_path(world.deployment, 0)).unlink()
    assert states[0] == "missing"
    assert {"stopped", "moved"} <= set(states)


# --- In turn --------------------------------------------------------------------------------------


@dataclass
class Cluster3:
    """Replicas of which each is served by somebody else, by ours, or by nobody; all is told."""

    deployment: Deployment
    states: dict[int, str]
    sick: set[int] = field(default_factory=set)  # normal under nobody
    breaks: dict[int, str] = field(default_factory=dict)  # step → what goes wrong with it
    did: list[str] = field(default_factory=list)

    def act(self, index: int, line: str) -> None:
        verb = "take" if "echo started" in line else "back" if "echo stopped" in line else "tidy"
        self.did.append(f"{verb} {index}")
        if verb == "take" and self.breaks.get(index) == "start":
            raise DeployError("replica: `a long\nscript` failed: \nno such unit")
        if verb != "tidy":
            self.states[index] = "ours" if verb == "take" else "foreign"

    def health_of(self, _: Deployment, left: set[int], __: object) -> list[ReplicaHealth]:
        def look(index: int) -> ReplicaHealth:
            state = self.states[index]
            is_normal = state == "foreign" and index in left
            is_normal |= state == "ours" and self.breaks.get(index) != "settle"
            is_normal &= index not in self.sick
            return ReplicaHealth(
                replica=self.deployment.cluster.replicas[index],
                process="RUNNING" if is_normal else "STARTING",
                pid=7,
                port_open=True,
                log=ReplicaLog(status="normal", is_primary=index == 1),
                pong=Pong(replica=index, release="0.17.9", view=1, ms=1.0),
            )

        return list(map(look, self.states))


@pytest.fixture
def cluster3(world: World, monkeypatch: pytest.MonkeyPatch) -> Cluster3:
    three = Cluster3(world.deployment, dict.fromkeys(range(3), "foreign"))
    note = Note(str(world.old), "0:0", "600", "7", "true")

    def survey(_: Deployment) -> Survey:
        def stands(index: int) -> Standing:
            state = three.states[index]
            running = world.process(7) if state == "foreign" else None
            return Standing(index, state, running, note=None if running else note)  # type: ignore[arg-type]

        standings = {index: stands(index) for index in three.states}
        return Survey({}, {}, standings)

    monkeypatch.setattr(adopt, "survey", survey)
    monkeypatch.setattr(adopt, "health_of", three.health_of)
    monkeypatch.setattr(health, "probe", lambda _: Canary(True, "committed"))
    monkeypatch.setattr(health, "START_TIMEOUT_S", 0.0)
    for bound in ("GATE_TIMEOUT_S", "CATCH_UP_TIMEOUT_S", "CATCH_UP_POLL_S"):
        monkeypatch.setattr(rollout, bound, 0.0)
    monkeypatch.setattr(Systemd, "states", lambda _: {})
    monkeypatch.setattr(Systemd, "log_tail", lambda *_: ["its last line"])
    return three


def take_all(cluster: Cluster3) -> list[str]:
    """What was told."""
    told: list[str] = []
    adopt.Takeover(cluster.deployment, cluster.act, told.append).run()
    return told


TIDIED = ["tidy 0", "tidy 1", "tidy 2"]


def test_all_are_taken_over_in_turn_the_primary_last(cluster3: Cluster3) -> None:
    take_all(cluster3)
    assert cluster3.did == ["take 0", "take 2", "take 1", *TIDIED]


def test_what_was_cut_off_comes_first_and_ours_are_left_alone(cluster3: Cluster3) -> None:
    cluster3.states = {0: "foreign", 1: "ours", 2: "stopped"}
    take_all(cluster3)
    assert cluster3.did == ["take 2", "take 0", *TIDIED]


def test_where_all_are_ours_nothing_is_taken_over(cluster3: Cluster3) -> None:
    cluster3.states = dict.fromkeys(range(3), "ours")
    take_all(cluster3)
    assert cluster3.did == TIDIED


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("start", "expected to take replica 2 over, found: no such unit"),
        ("settle", "(?s)with replica 2, found otherwise.*left as they were: 1.*its last line"),
    ],
)
def test_one_that_does_not_come_back_is_put_back_and_the_rest_left(
    cluster3: Cluster3, how: str, said: str
) -> None:
    cluster3.breaks = {2: how}
    with pytest.raises(Unhealthy, match=said):
        take_all(cluster3)
    assert cluster3.did == ["take 0", "take 2", "back 2"]
    assert cluster3.states == {0: "ours", 1: "foreign", 2: "foreign"}


def test_another_one_that_falls_ill_meanwhile_puts_nothing_back(cluster3: Cluster3) -> None:
    def act(index: int, line: str) -> None:
        Cluster3.act(cluster3, index, line)
        cluster3.sick = {1}

    with pytest.raises(Unhealthy, match="with replica 0, found otherwise"):
        adopt.Takeover(cluster3.deployment, act, lambda _: None).run()
    assert cluster3.did == ["take 0"]


def test_nothing_is_touched_while_the_cluster_does_not_commit(
    cluster3: Cluster3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "probe", lambda _: Canary(False, "no commit"))
    with pytest.raises(rollout.Stopped, match="before the first replica"):
        take_all(cluster3)
    assert cluster3.did == []
