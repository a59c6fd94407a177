"""All replicas freeze, all files are cloned, all thaw: whatever becomes of whoever asks for it.

The replicas are processes that only sleep; a `cp` that copies stands in for clones, so that this
runs on any file system. Real clones: `tests/operate/test_freeze.py`.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster import REPOSITORY, config
from cluster.config.deployment import Deployment
from cluster.operate.backup import freeze
from cluster.refusal import Failed, Refusal
from cluster.runtimes import of
from cluster.tigerbeetle.waiting import wait_until

CLUSTER = config.parse(config.read(config.ENV_FILE, {})).on_loopback()
NAME = "20261129T020000Z"
#: No timer fires in a test that does not wait for it, however busy the machine is.
PATIENT_S, SHORT_S = 15, 1
STEPS = {"arm": "armed", "freeze": "frozen", "clone": "cloned", "thaw": "thawed"}
#: A replica: threads that sleep. Its name is that of Python; the arguments count.
SERVER = """\
import threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("up", flush=True)
time.sleep(3600)
"""
#: As `cp --reflink=always` where a file can be cloned; it notes how every replica is then.
CP = """\
#!/bin/sh
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' >/dev/null
for pid in $(cat {pids}); do cut -d' ' -f3 /proc/$pid/stat; done >>{seen}
exec {cp} "$2" "$3"
"""
#: A coordinator that stops at a step, as one that is killed there.
DRIVER = """\
import pickle, sys, time
from cluster import interruption
from cluster.operate.backup import freeze
deployment, name, steps = pickle.load(sys.stdin.buffer)
try:
    with interruption.heard(), freeze.beside(deployment, name) as freezer:
        assert not freezer.cannot, freezer.cannot
        for word, answer in steps:
            freezer.step(word, answer, time.monotonic() + 60)
        print("there", flush=True)
        time.sleep(3600)
except KeyboardInterrupt:
    sys.exit(130)
"""


@dataclass
class Replicas:
    """Three that run, and their files."""

    deployment: Deployment
    processes: list[subprocess.Popen[bytes]]
    seen: Path

    def data(self, index: int) -> Path:
        return Path(of(self.deployment).data_file(index))

    def all_run(self) -> bool:
        states = [t for p in self.processes for t in thread_states(p.pid)]
        return len(states) == 6 and "T" not in states

    def clones(self) -> list[Path]:
        return sorted(self.deployment.state_dir.rglob("*.tigerbeetle?*"))

    def await_as_before(self, timeout_s: float = 60) -> None:
        """All run, and nothing is beside their files."""
        wait_until(
            lambda: (self.all_run() and not self.clones(), f"{self.clones()}"),
            what="all run, without a clone",
            timeout_s=timeout_s,
        )

    def limited(self, seconds: int) -> Deployment:
        cluster = self.deployment.cluster.model_copy(update={"freeze_limit_s": seconds})
        return self.deployment.model_copy(update={"cluster": cluster})


def thread_states(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return [task.read_text().rpartition(") ")[2][0] for task in tasks]


@pytest.fixture
def replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicas]:
    deployment = Deployment(
        name="emulator",
        engine="emulator",
        runtime="process",
        cluster=CLUSTER.model_copy(update={"freeze_limit_s": PATIENT_S}),
        state_dir=tmp_path / "it's mine",
    )
    programs, pids, seen = tmp_path / "bin", tmp_path / "pids", tmp_path / "seen"
    programs.mkdir()
    with ExitStack() as running:
        made = Replicas(deployment, [], seen)
        for replica in CLUSTER.replicas:
            path = made.data(replica.index)
            path.parent.mkdir(parents=True)
            path.write_bytes(os.urandom(1 << 20))

            server = [sys.executable, "-c", SERVER, "start", "--addresses=1", str(path)]
            process = running.enter_context(subprocess.Popen(server, stdout=subprocess.PIPE))
            running.callback(process.kill)
            made.processes.append(process)
        for process in made.processes:
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
        pids.write_text(" ".join(str(p.pid) for p in made.processes))
        script = CP.format(pids=pids, seen=seen, cp=shutil.which("cp"))
        (programs / "cp").write_text(script)
        (programs / "cp").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield made


def cp_says(what: str, code: int = 1) -> None:
    """Of what stands in for `cp`, another one."""
    path = Path(str(shutil.which("cp")))
    path.write_text(f"#!/bin/sh\necho {what} >&2\nexit {code}\n")


def test_all_are_frozen_while_any_is_cloned_and_run_before_any_clone_is_read(
    replicas: Replicas,
) -> None:
    before = time.time()
    with freeze.beside(replicas.deployment, NAME) as freezer:
        assert freezer.cannot == {}
        replicas.seen.unlink()  # of the trials
        cut = freezer.clone()
        assert replicas.all_run()
        clones = replicas.clones()
        assert [c.name.rpartition(".")[2] for c in clones] == [f"clone-{NAME}"] * 3
        assert [c.read_bytes() for c in clones] == [replicas.data(i).read_bytes() for i in range(3)]
        assert {c.stat().st_mode & 0o077 for c in clones} == {0}
    assert replicas.seen.read_text().split() == ["T"] * 9
    assert before <= cut.taken_at.timestamp() <= time.time()
    assert cut.frozen_s is not None
    replicas.await_as_before()
    assert timers(replicas) == []


def timers(replicas: Replicas) -> list[int]:
    """Those that would still thaw one of them."""
    found = {p.pid: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    own = str(replicas.deployment.state_dir)
    return [pid for pid, words in found.items() if words[3:4] == ["guard"] and own in words[6]]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_whoever_asks_may_end_at_every_step_and_another_begins_anew(
    replicas: Replicas, steps: int, number: signal.Signals
) -> None:
    with driver(replicas.deployment, steps) as asking:
        asking.send_signal(number)
        assert asking.wait(60) == (-9 if number == signal.SIGKILL else 130)
        replicas.await_as_before()
    with freeze.beside(replicas.deployment, NAME) as freezer:
        assert freezer.cannot == {}
        freezer.clone()
        assert len(replicas.clones()) == 3
    replicas.await_as_before()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_who_asks_for_nothing_more_is_outlived_by_the_timer(replicas: Replicas, steps: int) -> None:
    """As behind a connection that is cut without a word: its other end stays open."""
    with driver(replicas.limited(SHORT_S), steps) as asking:
        asking.send_signal(signal.SIGSTOP)
        replicas.await_as_before()
        wait_until(lambda: (timers(replicas) == [], "a timer"), what="no timer", timeout_s=60)


@pytest.mark.parametrize("steps", [2, 3])
def test_the_timer_outlives_what_it_is_for(replicas: Replicas, steps: int) -> None:
    with driver(replicas.limited(SHORT_S), steps) as asking:
        for script in psutil.Process(asking.pid).children():
            script.kill()
        replicas.await_as_before()


class driver:  # noqa: N801 - reads as a function
    """A coordinator that has come so far, in a process of its own."""

    def __init__(self, deployment: Deployment, steps: int) -> None:
        self.given = pickle.dumps((deployment, NAME, [*STEPS.items()][:steps]))

    def __enter__(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", DRIVER]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(self.given)
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"there\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("after", ["freeze", "clone"])
def test_a_replica_that_is_thawed_early_makes_it_no_backup(replicas: Replicas, after: str) -> None:
    words = [*STEPS.items()]
    done = [word for word, _ in words].index(after) + 1
    with freeze.beside(replicas.deployment, NAME) as freezer:
        for word, answer in words[:done]:
            freezer.step(word, answer, time.monotonic() + 60)
        replicas.processes[1].send_signal(signal.SIGCONT)
        with pytest.raises(Failed, match=r"replica 1: expected it .*, found: it was thawed before"):
            freezer.step(*words[done], time.monotonic() + 60)
    replicas.await_as_before()


def test_a_timer_that_has_fired_is_told_and_makes_it_no_backup(replicas: Replicas) -> None:
    with freeze.beside(replicas.limited(SHORT_S), NAME) as freezer:
        for word in ("arm", "freeze"):
            freezer.step(word, STEPS[word], time.monotonic() + 60)
        replicas.await_as_before()
        with pytest.raises(Failed, match=r"replica 0: .* found: it went on by itself, since"):
            freezer.step("clone", "cloned", time.monotonic() + 60)


def test_a_freeze_that_takes_too_long_is_no_backup(replicas: Replicas) -> None:
    with freeze.beside(replicas.limited(SHORT_S), NAME) as freezer:
        path = Path(str(shutil.which("cp")))
        path.write_text(f"#!/bin/sh\nsleep 3; exec {shutil.which('true')}\n")
        with pytest.raises(Failed, match=r"expected it cloned within 1 s, .* no backup\. Fix: "):
            freezer.clone()
    replicas.await_as_before()


def test_a_clone_that_fails_is_no_backup(replicas: Replicas) -> None:
    with freeze.beside(replicas.deployment, NAME) as freezer:
        cp_says("cp: failed to clone: No space left on device")
        with pytest.raises(Failed, match="found: No space left on device; files of different"):
            freezer.clone()
    replicas.await_as_before()


def test_a_replica_that_ends_while_it_is_frozen_makes_it_no_backup(replicas: Replicas) -> None:
    with freeze.beside(replicas.deployment, NAME) as freezer:
        for word in ("arm", "freeze"):
            freezer.step(word, STEPS[word], time.monotonic() + 60)
        replicas.processes[2].kill()
        replicas.processes[2].wait()
        with pytest.raises(Failed, match="replica 2: "):
            freezer.step("clone", "cloned", time.monotonic() + 60)


def test_what_a_killed_backup_has_left_is_removed_and_nothing_else(replicas: Replicas) -> None:
    left = replicas.data(0).with_name(f"{replicas.data(0).name}.clone-20261128T020000Z")
    kept = replicas.data(0).with_name(f"{replicas.data(0).name}.replaced")
    left.touch()
    kept.touch()
    with freeze.beside(replicas.deployment, NAME) as freezer:
        assert left.exists()  # it may be that of a backup under way, as long as none is asked for
        freezer.clone()
        assert not left.exists()
    assert replicas.clones() == [kept]


def test_why_a_replica_cannot_be_frozen_is_told(replicas: Replicas) -> None:
    cp_says('"cp: failed to clone: Operation not supported"')
    replicas.processes[0].kill()
    replicas.processes[0].wait()
    replicas.processes[1].send_signal(signal.SIGSTOP)
    wait_until(lambda: (not replicas.all_run(), ""), what="it has stopped", timeout_s=60)
    with freeze.beside(replicas.deployment, NAME) as freezer:
        cannot = dict(freezer.cannot)
    replicas.processes[1].send_signal(signal.SIGCONT)
    assert cannot[0].startswith("no process serves ")
    assert cannot[1].startswith("somebody has stopped its process")
    assert "no file can be cloned (Operation not supported)" in cannot[2]
    assert replicas.clones() == []


def test_without_room_for_what_is_written_meanwhile_nothing_is_cloned(replicas: Replicas) -> None:
    """A server whose write finds no block would die: all of them at once, on one disk."""
    df = Path(str(shutil.which("cp"))).with_name("df")
    df.write_text(
        "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\n"
        "echo '/dev/vda 9999 9999 3071 100% /'\n"
    )
    df.chmod(0o755)
    with freeze.beside(replicas.deployment, NAME) as freezer:
        assert freezer.cannot[0] == (
            "beside it are 2 MiB free, and while there are clones, writes may take 3 MiB"
        )
    df.write_text(df.read_text().replace("3071", "3072"))
    with freeze.beside(replicas.deployment, NAME) as freezer:
        assert freezer.cannot == {}


@pytest.mark.parametrize("arguments", [("start", "--addresses=1", "{}2"), ("inspect", "1", "{}")])
def test_a_process_that_only_resembles_a_server_is_left_alone(
    replicas: Replicas, arguments: tuple[str, ...]
) -> None:
    given = [argument.format(replicas.data(0)) for argument in arguments]
    with (
        subprocess.Popen([sys.executable, "-c", SERVER, *given], stdout=subprocess.PIPE) as other,
        freeze.beside(replicas.deployment, NAME) as freezer,
    ):
        for word in ("arm", "freeze"):
            freezer.step(word, STEPS[word], time.monotonic() + 60)
        assert "T" not in thread_states(other.pid)
        assert thread_states(replicas.processes[0].pid) == ["T", "T"]
        other.kill()


EXT4 = "on its file system, ext2/ext3, no file can be cloned (Operation not supported)"


@pytest.mark.parametrize(
    ("asked", "cannot", "way", "why"),
    [
        (None, {}, "freeze", "every data file can be cloned"),
        (None, {1: EXT4}, "stop", f"replica 1: {EXT4}"),
        ("freeze", {}, "freeze", "WAY=freeze"),
        ("stop", {}, "stop", "WAY=stop"),
    ],
)
def test_the_way_is_chosen_with_a_reason(
    asked: freeze.Way | None, cannot: dict[int, str], way: str, why: str
) -> None:
    assert freeze.choose(asked, cannot) == (way, why)


def test_a_freeze_that_is_not_possible_is_refused_where_it_was_asked_for() -> None:
    with pytest.raises(Refusal, match=r"WAY=freeze: expected .* found replica 0: .*; replica 2: "):
        freeze.choose("freeze", {2: EXT4, 0: EXT4})
