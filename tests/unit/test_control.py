"""The shell commands for one replica, run by a real shell."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
from pathlib import Path

import pytest

from cluster import config
from cluster.config.inventory import Deployment, Runtime
from cluster.runtimes import control
from cluster.runtimes.control import Control


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
def replica(tmp_path: Path) -> Control:
    """A replica under a directory whose name a shell could stumble over."""
    found = control.of(deployment(tmp_path / "it's 100% mine"), 1)
    Path(found.data_file).parent.mkdir(parents=True)
    return found


def test_a_script_runs_while_it_holds_the_data_files_lock(replica: Control) -> None:
    Path(replica.data_file).write_text("money")
    probe = (
        f"cat {shlex.quote(replica.data_file)}; ! flock -n {shlex.quote(replica.data_file)} true"
    )
    done = shell(control.unlocked(replica, probe))
    assert (done.returncode, done.stdout) == (0, "money"), done.stderr


def test_a_script_that_fails_fails(replica: Control) -> None:
    Path(replica.data_file).touch()
    assert shell(control.unlocked(replica, "exit 7")).returncode == 7


def test_a_replica_that_runs_is_not_touched(replica: Control) -> None:
    with Path(replica.data_file).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = shell(control.unlocked(replica, "echo touched"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "its replica runs" in done.stderr


def test_a_missing_data_file_is_named_and_not_created(replica: Control) -> None:
    done = shell(control.unlocked(replica, "echo touched"))
    assert done.returncode == 1
    assert "no such data file" in done.stderr
    assert not Path(replica.data_file).exists()


def test_stopping_where_no_supervisor_runs_is_no_error(replica: Control) -> None:
    assert shell(replica.stop).returncode == 0


def test_a_container_is_helped_by_one_that_is_confined_as_it_is(tmp_path: Path) -> None:
    found = control.of(deployment(tmp_path, "compose"), 2)
    words = shlex.split(found.sh("true"))
    assert "--network=none" in words
    assert "--cap-drop=ALL" in words
    assert "--log-driver=none" in words  # the engine would write what it packs into a log, unpacked
    assert "--volume=wallet-service_tigerbeetle-data-2:/data" in words
    assert found.data_file == "/data/0_2.tigerbeetle"
    assert "--network=wallet-service_tigerbeetle-net" in shlex.split(
        found.tigerbeetle("recover", network=True)
    )
