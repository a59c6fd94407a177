"""The shell commands for one replica, run by a real shell."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cluster import config
from cluster.config.deployment import Deployment, Runtime
from cluster.runtimes import CLASSES, of
from cluster.runtimes.base import Runtime as Running


def deployment(directory: Path, runtime: Runtime = "process") -> Deployment:
    return Deployment(
        name="emulator",
        engine="emulator",
        runtime=runtime,
        cluster=config.load(environ={}).on_loopback(),
        state_dir=directory,
    )


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.fixture
def runtime(tmp_path: Path) -> Running:
    """Under a directory whose name a shell could stumble over."""
    found = of(deployment(tmp_path / "it's 100% mine"))
    Path(found.data_file(1)).parent.mkdir(parents=True)
    return found


def test_a_script_runs_while_it_holds_the_data_files_lock(runtime: Running) -> None:
    Path(runtime.data_file(1)).write_text("money")
    path = shlex.quote(runtime.data_file(1))
    done = shell(runtime.unlocked(1, f"cat {path}; ! flock -n {path} true"))
    assert (done.returncode, done.stdout) == (0, "money"), done.stderr


def test_a_script_that_fails_fails(runtime: Running) -> None:
    Path(runtime.data_file(1)).touch()
    assert shell(runtime.unlocked(1, "exit 7")).returncode == 7


def test_a_replica_that_runs_is_not_touched(runtime: Running) -> None:
    with Path(runtime.data_file(1)).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = shell(runtime.unlocked(1, "echo touched"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "its replica runs" in done.stderr


def test_a_missing_data_file_is_named_and_not_created(runtime: Running) -> None:
    done = shell(runtime.unlocked(1, "echo touched"))
    assert done.returncode == 1
    assert "no such data file" in done.stderr
    assert not Path(runtime.data_file(1)).exists()


def test_stopping_where_no_supervisor_runs_is_no_error(runtime: Running) -> None:
    assert shell(runtime.stop(1)).returncode == 0


def test_a_container_is_helped_by_one_that_is_confined_as_it_is(tmp_path: Path) -> None:
    found = of(deployment(tmp_path, "compose"))
    words = shlex.split(found.sh(2, "true"))
    assert "--network=none" in words
    assert "--cap-drop=ALL" in words
    assert "--log-driver=none" in words  # the engine would write what it packs into a log, unpacked
    assert "--volume=wallet-service_tigerbeetle-data-2:/data" in words
    assert found.data_file(2) == "/data/0_2.tigerbeetle"
    assert "--network=wallet-service_tigerbeetle-net" in shlex.split(
        found.tigerbeetle(2, "recover", network=True)
    )


def test_each_runtime_of_an_inventory_has_its_class() -> None:
    assert set(CLASSES) == set(get_args(Runtime))


@pytest.mark.parametrize("runtime", get_args(Runtime))
def test_only_the_runtime_that_is_asked_for_is_loaded(runtime: str) -> None:
    others = [f"cluster.runtimes.{name}" for name in CLASSES if name != runtime]
    script = (
        "import sys\n"
        "from unittest.mock import Mock\n"
        "from cluster.runtimes import of\n"
        f"of(Mock(runtime={runtime!r}))\n"
        f"print([name for name in {others!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_still_reads_a_data_file_is_ended_before_a_start(runtime: Running) -> None:
    Path(runtime.data_file(1)).write_text("money")
    path = shlex.quote(runtime.data_file(1))
    reading = runtime.unlocked(1, f"echo held; cat {path} /dev/zero >/dev/null")
    holder = subprocess.Popen(["sh", "-c", reading], stdout=subprocess.PIPE, text=True)
    with holder:
        try:
            # It says so: who tried the lock to see it held would be taken for a replica that runs.
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            assert shell(runtime.release(1)).returncode == 0
            holder.wait(60)
            assert shell(f"flock -w 60 {path} true").returncode == 0
        finally:
            holder.kill()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("process", "sh -c 'echo it'"),
        ("compose", "docker exec --interactive tigerbeetle-0 sh -c 'echo it'"),
        ("systemd", "runuser -u tigerbeetle -- sh -c 'echo it'"),
        ("docker", "docker exec --interactive tigerbeetle-0 sh -c 'echo it'"),
    ],
)
def test_what_runs_beside_a_replica_starts_no_container(
    tmp_path: Path, kind: Runtime, line: str
) -> None:
    assert of(deployment(tmp_path, kind)).beside(0, "echo it") == line
