"""Backups in a repository, by the commands a user types: restic's own, on the emulator's files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.config import ENV_FILE
from cluster.config import repository as config_of
from cluster.operate.backup import repository
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox, sandbox
from tests.file_systems import xfs
from tests.leases import free_ports
from tests.operate import repositories
from tests.operate.ledger import ledger
from tests.operate.repositories import KEYS, PASSWORD, needs_restic

pytestmark = needs_restic

PLACES = [
    pytest.param(repositories.directory, id="directory"),
    pytest.param(repositories.sftp, id="sftp", marks=pytest.mark.long),
    pytest.param(repositories.s3, id="s3", marks=pytest.mark.long),
]


def records(made: Sandbox) -> Path:
    return Path(made.environ["BACKUP_DIR"]) / "emulator"


def backup(made: Sandbox, *options: str) -> str:
    """Take one; its name."""
    done = made.call("backup", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return max(path.name for path in records(made).glob("*Z"))


def restic(made: Sandbox, *arguments: str) -> str:
    """Ask the repository behind the project's back."""
    environ = made.environ | {"RESTIC_PASSWORD": PASSWORD}
    environ["RESTIC_REPOSITORY"] = made.environ["BACKUP_TO"]
    return subprocess.check_output(["restic", *arguments], env=environ, text=True, timeout=300)


def sets(made: Sandbox) -> set[str]:
    """The names of those of which there is a manifest, by restic's own list."""
    found = json.loads(restic(made, "snapshots", "--json", "--tag=manifest")) or []
    return {tag[4:] for each in found for tag in each["tags"] if tag.startswith("set=")}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


@contextmanager
def running(
    tmp_path: Path, place: Callable[[Path], AbstractContextManager[dict[str, str]]]
) -> Iterator[Sandbox]:
    """A cluster that runs, with 500 transfers, and a new repository."""
    password = str(repositories.password_file(tmp_path))
    with (
        place(tmp_path) as variables,
        sandbox("inventories/emulator.py", BACKUP_PASSWORD_FILE=password, **variables) as made,
    ):
        assert made.up().returncode == 0
        ledger(made).write(1, 500)
        done = made.call("backup-init")
        assert done.returncode == 0, done.stderr
        assert "keep a copy elsewhere" in done.stdout
        yield made


@pytest.mark.parametrize("place", PLACES)
def test_what_is_in_the_repository_alone_restores_the_whole_cluster(
    tmp_path: Path, place: Callable[[Path], AbstractContextManager[dict[str, str]]]
) -> None:
    with running(tmp_path, place) as made:
        before = ledger(made).read(700)
        noted = _noting_arguments(made, tmp_path)
        done = made.run("make", "backup")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (taken,) = (path.name for path in records(made).glob("*Z"))
        assert [p.name for p in (records(made) / taken).iterdir()] == ["manifest.json"]
        _assert_no_secret_is_told(noted.read_text() + done.stdout + done.stderr)
        assert "backup --json" in noted.read_text(), "the arguments were noted"

        ledger(made).write(501, 100)
        later = backup(made)
        assert sets(made) == {taken, later}
        listed = made.call("backups").stdout
        assert [line.split()[:2] for line in listed.splitlines()[2:] if line[1:2] == "2"] == [
            [taken, "repository"],
            [later, "repository"],
        ]

        assert made.down().returncode == 0
        shutil.rmtree(made.state_dir)
        shutil.rmtree(records(made))  # another machine operates the cluster from now on
        verified = made.call("backup-verify", f"--from={taken}")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        with made.having(CONFIRM="yes"):
            restored = made.call("restore", f"--from={taken}")
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert ledger(made).read(700) == before


def _noting_arguments(made: Sandbox, tmp_path: Path) -> Path:
    """From here on what restic is called with is noted, as `ps` shows it to everybody."""
    programs = tmp_path / "noting"
    programs.mkdir()
    noted = tmp_path / "arguments"
    (programs / "restic").write_text(
        f'#!/bin/sh\necho "$*" >>{noted}\nexec {shutil.which("restic")} "$@"\n'
    )
    (programs / "restic").chmod(0o755)
    made.overrides["PATH"] = f"{programs}:{made.environ['PATH']}"
    return noted


def _assert_no_secret_is_told(said: str) -> None:
    assert PASSWORD not in said
    assert not any(secret in said for secret in KEYS.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A cluster that runs, and one backup of it in a repository in a directory."""
    with running(tmp_path_factory.mktemp("whole"), repositories.directory) as made:
        backup(made)
        yield made


def _nowhere(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    return {"BACKUP_TO": str(tmp_path / "nowhere")}


def _unreachable(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    (port,) = free_ports(1)
    return {"BACKUP_TO": f"sftp://nobody@127.0.0.1:{port}//x"}


def _unreachable_s3(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    """One that takes connections, and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Timer(600, listener.close).start()
    return {"BACKUP_TO": f"s3:http://127.0.0.1:{listener.getsockname()[1]}/bucket", **KEYS}


def _wrong_password(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    return {"BACKUP_PASSWORD_FILE": str(repositories.password_file(tmp_path, "another"))}


def _no_password(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    return {"BACKUP_PASSWORD_FILE": str(tmp_path / "lost")}


#: Who holds a repository, until the test ends.
_HOLDING: list[subprocess.Popen[bytes]] = []


def _locked(made: Sandbox, tmp_path: Path) -> dict[str, str]:
    """By a process that stands still while it has the repository for itself."""
    locks = Path(made.environ["BACKUP_TO"]) / "locks"
    environ = made.environ | {"RESTIC_PASSWORD": PASSWORD}
    environ["RESTIC_REPOSITORY"] = made.environ["BACKUP_TO"]
    _HOLDING.append(subprocess.Popen(["restic", "check", "--quiet"], env=environ))
    until = time.monotonic() + 60
    while not any("-tmp" not in lock.name for lock in locks.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.001)
    _HOLDING[-1].send_signal(signal.SIGSTOP)
    assert any(locks.iterdir())
    return {}


CONDITIONS: dict[Callable[[Sandbox, Path], dict[str, str]], str] = {
    _nowhere: "BACKUP_TO: expected a repository at .*nowhere, found none. Fix: mount it",
    _unreachable: "expected to reach the repository, found .*(refused|closed|EOF)",
    _wrong_password: "BACKUP_PASSWORD_FILE: expected the password of the repository .*, found an",
    _no_password: "BACKUP_PASSWORD_FILE: expected the file .*lost.*, found No such file",
    _locked: r"expected a repository that nobody holds, found a lock of PID .*s old. Fix: wait",
    _unreachable_s3: "expected to reach the repository, found no answer within",
}


def _is_long(condition: object, command: str) -> bool:
    """Within `make test` each condition meets a backup, and one of them every command."""
    return condition is _unreachable_s3 or (command != "backup" and condition != _wrong_password)


#: Reading needs no lock; and one command waits for an answer in place of all.
PAIRS = [
    pytest.param(condition, command, marks=[pytest.mark.long] * _is_long(condition, command))
    for condition in CONDITIONS
    for command in ("backup", "backups", "restore", "backup-verify")
    if command == "backup" or condition not in (_locked, _unreachable_s3)
]


@pytest.mark.parametrize(("condition", "command"), PAIRS)
def test_what_is_wrong_with_the_repository_is_told_in_a_line_and_nothing_is_touched(
    whole: Sandbox,
    tmp_path: Path,
    condition: Callable[[Sandbox, Path], dict[str, str]],
    command: str,
) -> None:
    pids, there = whole.pids(), sets(whole)
    options = [f"--from={max(there)}"] * (command == "restore")
    try:
        with whole.having(**condition(whole, tmp_path), CONFIRM="yes"):
            if command == "restore":
                shutil.move(records(whole), tmp_path / "records")
            done = whole.call(command, *options)
    finally:
        if command == "restore":
            shutil.rmtree(records(whole), ignore_errors=True)
            shutil.move(tmp_path / "records", records(whole))
        while _HOLDING:
            with _HOLDING.pop() as holding:
                holding.kill()
        restic(whole, "unlock", "--remove-all", "--quiet")
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(CONDITIONS[condition], done.stderr), done.stderr
    assert whole.pids() == pids
    assert sets(whole) == there


def _flip(path: Path) -> None:
    """One bit of a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def sets_here(made: Sandbox) -> set[str]:
    return {path.name for path in records(made).glob("*Z")}


FLIPPED = {
    "data": "expected what was stored, found damage: .*verification failed",
    "index": "expected what was stored, found damage: .*invalid data",
    "snapshots": "FROM: expected backup .*, found 3 of its 3 files gone, or damaged in its list",
}


@pytest.mark.parametrize(
    "what", ["data", *(pytest.param(w, marks=pytest.mark.long) for w in ("index", "snapshots"))]
)
def test_a_flipped_byte_is_told_in_a_line_and_restores_nothing(
    whole: Sandbox, tmp_path: Path, what: str
) -> None:
    """Of each file of a kind: which of them a restore needs is restic's own affair."""
    shutil.copytree(whole.environ["BACKUP_TO"], damaged := tmp_path / "damaged")
    for file in filter(Path.is_file, (damaged / what).rglob("*")):
        _flip(file)
    there = [whole.data_file(index).read_bytes() for index in range(3)]
    # Without what this machine remembers of the repository.
    with whole.having(BACKUP_TO=str(damaged), XDG_CACHE_HOME=str(tmp_path), CONFIRM="yes"):
        verified = whole.call("backup-verify")
        assert whole.down().returncode == 0
        restored = whole.call("restore", f"--from={max(sets_here(whole))}")
    try:
        for done in (verified, restored):
            assert done.returncode in (1, 2)
            assert re.search(FLIPPED[what], done.stderr), done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
        assert [whole.data_file(index).read_bytes() for index in range(3)] == there
        assert not list(whole.state_dir.rglob("*.restoring"))
    finally:
        assert whole.up().returncode == 0


@contextmanager
def _mounted(place: Path) -> Iterator[dict[str, str]]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "small", str(place)]
    subprocess.run(mount, check=True, timeout=60)
    try:
        yield {"BACKUP_TO": str(place / "repository")}
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False, timeout=60)


def test_the_room_is_known_over_sftp_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    with repositories.sftp(tmp_path) as variables:
        monkeypatch.setenv("PATH", variables["PATH"])
        named = {**variables, "BACKUP_PASSWORD_FILE": "/any"}
        found = config_of.of(ENV_FILE, named)
        assert found
        free = repository._free(found)
        missing = found.model_copy(update={"url": found.url.replace("/repository", "/nowhere")})
        assert repository._free(missing) is None
    here = os.statvfs(tmp_path)
    assert free == pytest.approx(here.f_bavail * here.f_frsize, rel=0.2)  # others write, too


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system that is full")
@pytest.mark.long
def test_a_repository_that_fills_up_is_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    def small(place: Path) -> AbstractContextManager[dict[str, str]]:
        (place / "small").mkdir()
        return _mounted(place / "small")

    with running(tmp_path, small) as made:
        first = backup(made)
        full = Path(made.environ["BACKUP_TO"]).parent
        used = os.statvfs(full).f_files - os.statvfs(full).f_ffree
        # No room for many more files. Of bytes there is enough: nobody knows that it will fill.
        remount = ["mount", "-o", f"remount,nr_inodes={used + 2}", str(full)]
        subprocess.run(remount, check=True, timeout=60)
        ledger(made).write(501, 3000)
        done = made.call("backup", "--keep=1")
        assert done.returncode == 1, done.stdout + done.stderr
        assert re.search("expected room for the backup, found .*no space left", last_line(done))
        assert "every replica runs" in last_line(done)
        assert sets(made) == {first}  # nothing is let go for a backup that has failed
        assert sets_here(made) == {first}
        assert made.call("status").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_a_file_is_stored_leaves_no_set_no_lock_and_all_replicas(
    whole: Sandbox, tmp_path: Path, number: int
) -> None:
    before = sets(whole)
    (tmp_path / "restic").write_text(
        f"#!/bin/sh\nreal={shutil.which('restic')}\n"
        f'case "$*" in *replica-1*) {{ cat; touch {tmp_path}/storing; exec sleep 600; }} | '
        '$real "$@";; *) exec $real "$@";; esac\n'
    )
    (tmp_path / "restic").chmod(0o755)
    environ = whole.environ | {"PATH": f"{tmp_path}:{whole.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "-m", "cluster", "backup"],
        cwd=REPOSITORY,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        storing = tmp_path / "storing"
        wait_until(lambda: (storing.exists(), ""), what="the second to be stored", timeout_s=300)
        process.send_signal(number)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert "no backup was taken; every replica runs" in said
    assert whole.call("status").returncode == 0
    assert not any((Path(whole.environ["BACKUP_TO"]) / "locks").iterdir())
    assert sets(whole) == before
    kept = {tag for s in json.loads(restic(whole, "snapshots", "--json")) for tag in s["tags"]}
    assert {tag[4:] for tag in kept if tag.startswith("set=")} == before


@pytest.mark.long
def test_old_sets_go_only_after_a_new_one_is_there_and_while_nobody_holds_the_repository(
    whole: Sandbox,
) -> None:
    before = sets(whole)
    environ = whole.environ | {"RESTIC_PASSWORD": PASSWORD}
    environ["RESTIC_REPOSITORY"] = whole.environ["BACKUP_TO"]
    locks = Path(whole.environ["BACKUP_TO"]) / "locks"
    with subprocess.Popen(
        ["restic", "backup", "--quiet", "--stdin"], env=environ, stdin=subprocess.PIPE
    ) as other:
        wait_until(lambda: (any(locks.iterdir()), ""), what="another backup", timeout_s=120)
        done = whole.call("backup", "--keep=1")
        other.send_signal(signal.SIGINT)
    assert done.returncode == 1
    new = sets(whole) - before
    assert len(new) == 1  # beside another's backup
    assert re.search(rf"found a lock of PID {other.pid} .*backup {max(new)} is taken", done.stderr)
    assert before < sets(whole)

    done = whole.call("backup", "--keep=2")
    assert done.returncode == 0, done.stderr
    assert len(sets(whole)) == 2
    assert max(new) in sets(whole)
    assert sets_here(whole) == sets(whole)
    restic(whole, "check", "--read-data")


@pytest.mark.long
def test_what_a_killed_backup_has_left_is_no_backup_and_goes_with_the_next_old_set(
    whole: Sandbox,
) -> None:
    left = "20200101T000000Z"
    tags = f"wallet-service,cluster=0,deployment=emulator,engine=emulator,set={left},replica=0"
    restic(whole, "backup", "--quiet", f"--tag={tags}", str(whole.data_file(0)))
    restic(whole, "backup", "--quiet", "--tag=mine", str(whole.data_file(0)))
    assert left not in whole.call("backups").stdout
    backup(whole, "--keep=1")
    found = json.loads(restic(whole, "snapshots", "--json"))
    tagged = [each.get("tags") or [] for each in found]
    assert not [tags for tags in tagged if f"set={left}" in tags]
    assert ["mine"] in tagged  # which is somebody else's


@pytest.mark.long
def test_clones_go_to_the_repository_as_they_are_and_no_replica_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with xfs() as place:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        with running(tmp_path, repositories.directory) as made:
            monkeypatch.setattr(tempfile, "tempdir", None)
            before, pids = ledger(made).read(600), made.pids()
            taken = backup(made)
            assert made.pids() == pids
            manifest = json.loads((records(made) / taken / "manifest.json").read_text())
            assert (manifest["way"], manifest["stopped_s"]) == ("freeze", None)
            assert not list(made.directory.rglob("*.zst"))
            assert not list(made.state_dir.rglob("*.tigerbeetle?*"))  # nor a clone
            # What is in the repository is what a person would restore by restic alone.
            (first,) = (f["snapshot"] for f in manifest["files"] if f["replica"] == 0)
            restic(made, "restore", "--quiet", f"--target={tmp_path}/by-hand", first)
            (by_hand,) = (tmp_path / "by-hand").iterdir()
            stored = by_hand.read_bytes()
            assert stored
            assert made.data_file(0).read_bytes().startswith(stored)  # it is appended to

            ledger(made).write(501, 50)
            assert made.down().returncode == 0
            with made.having(CONFIRM="yes"):
                restored = made.call("restore", f"--from={taken}")
            assert restored.returncode == 0, restored.stdout + restored.stderr
            assert ledger(made).read(600) == before
