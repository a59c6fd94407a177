"""What a deploy must not do, it refuses with one clear line, before anything is started."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import psutil

from tests.clusters import Sandbox, sandbox


def refused(made: Sandbox) -> str:
    """The error of a deploy that must fail; no replica may have been started by it."""
    done = made.up()
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Starting operation" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_named_with_its_holder(emulator: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", emulator.ports[1])):
        error = refused(emulator)
    assert f"LU_CFG_TIGERBEETLE_1_PORT: expected 127.0.0.1:{emulator.ports[1]} to be free" in error
    assert f"found pid {os.getpid()} (" in error
    assert not emulator.state_dir.exists()


def test_an_unformatted_data_file_is_not_formatted_over(emulator: Sandbox) -> None:
    for index in range(3):
        emulator.data_file(index).parent.mkdir(parents=True)
        emulator.data_file(index).write_bytes(bytes(4096))
    error = refused(emulator)
    assert "0_0.tigerbeetle: expected a formatted data file" in error
    assert emulator.data_file(0).read_bytes() == bytes(4096)


def test_a_data_file_of_another_cluster_is_refused(emulator: Sandbox) -> None:
    with sandbox("inventories/emulator.py", LU_CFG_TIGERBEETLE_CLUSTER_ID="7") as other:
        assert other.up().returncode == 0
        assert other.down().returncode == 0
        for index in range(3):
            emulator.data_file(index).parent.mkdir(parents=True)
            foreign = other.state_dir / f"replica-{index}" / f"7_{index}.tigerbeetle"
            foreign.rename(emulator.data_file(index))
        error = refused(emulator)
        for index in range(3):  # so that the other sandbox can be stopped as it was
            assert emulator.data_file(index).exists()
    assert "expected the data file of cluster 0, replica 0 of 3, found that of cluster 7" in error


def test_swapped_data_files_are_refused(emulator: Sandbox) -> None:
    assert emulator.up().returncode == 0
    assert emulator.down().returncode == 0
    aside = emulator.directory / "aside"
    emulator.data_file(0).rename(aside)
    emulator.data_file(1).rename(emulator.data_file(0))
    aside.rename(emulator.data_file(1))
    assert "replica 0: expected the data file of cluster 0, replica 0 of 3" in refused(emulator)


def test_a_lost_data_file_is_not_formatted_anew(emulator: Sandbox) -> None:
    assert emulator.up().returncode == 0
    assert emulator.down().returncode == 0
    emulator.data_file(2).unlink()
    error = refused(emulator)
    assert "replica 2: expected a data file, since the other replicas have theirs" in error
    assert "recover" in error
    assert not emulator.data_file(2).exists()


def test_a_changed_cluster_id_does_not_touch_the_cluster_that_runs(emulator: Sandbox) -> None:
    assert emulator.up().returncode == 0
    pids = emulator.pids()
    emulator.overrides["LU_CFG_TIGERBEETLE_CLUSTER_ID"] = "7"
    error = refused(emulator)
    assert "expected no data file but 7_0.tigerbeetle, found 0_0.tigerbeetle" in error
    assert emulator.pids() == pids
    assert all(psutil.pid_exists(pid) for pid in pids)


def test_an_interrupted_first_format_is_finished(emulator: Sandbox) -> None:
    """As if it had been killed after the first rename, a half-written file left behind."""
    assert emulator.up().returncode == 0
    assert emulator.down().returncode == 0
    for index in (1, 2):
        emulator.data_file(index).unlink()
    emulator.data_file(1).with_name("0_1.tigerbeetle.partial").write_bytes(b"half")
    (emulator.state_dir / "bootstrapping").touch()
    done = emulator.up()
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (emulator.state_dir / "bootstrapping").exists()
    assert emulator.data_file(2).exists()


def test_replicas_without_their_supervisor_are_named_and_down_stops_them(emulator: Sandbox) -> None:
    assert emulator.up().returncode == 0
    supervisor = int((emulator.state_dir / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(supervisor)] if psutil.pid_exists(supervisor) else [], 10)
    error = refused(emulator)
    assert "expected it under its supervisor, found it as pid" in error
    assert "make down INVENTORY=inventories/emulator.py" in error
    pids = emulator.pids()
    assert emulator.down().returncode == 0
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
    assert alive == []
    assert emulator.up().returncode == 0


def test_a_state_directory_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    with sandbox("inventories/emulator.py", LU_CFG_TIGERBEETLE_DATA_DIR=str(deep)) as made:
        error = refused(made)
    assert "expected a socket path of at most 96 characters" in error
    assert not deep.exists()


def test_a_missing_server_is_refused_with_three_ways_out(tmp_path: Path) -> None:
    only_sh = tmp_path / "bin"
    only_sh.mkdir()
    with sandbox("inventories/process.py", PATH="/usr/bin:/bin", TIGERBEETLE_BIN="") as made:
        error = refused(made)
    assert "expected the server in TIGERBEETLE_BIN or on PATH, found none" in error
    assert "inventories/emulator.py" in error


def test_a_server_of_another_release_is_refused(tmp_path: Path) -> None:
    server = tmp_path / "tigerbeetle"
    server.write_text("#!/bin/sh\necho TigerBeetle version 0.17.4\n")
    server.chmod(0o755)
    with sandbox("inventories/process.py", TIGERBEETLE_BIN=str(server)) as made:
        error = refused(made)
    assert "expected the server to be 0.17.9, found 0.17.4" in error


def test_the_emulator_is_not_taken_for_the_genuine_server() -> None:
    emulator = Path(sys.executable).parent / "tigerbeetle-emulator"
    with sandbox("inventories/process.py", TIGERBEETLE_BIN=str(emulator)) as made:
        error = refused(made)
    assert "expected the genuine server, found the emulator" in error


def test_a_server_that_cannot_start_ends_the_wait_with_its_log(tmp_path: Path) -> None:
    """It formats and inspects like the emulator, and dies at start as a broken one would."""
    server = tmp_path / "tigerbeetle"
    server.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = start ]; then echo "error: SystemResources"; exit 1; fi\n'
        'if [ "$1" = version ]; then echo "TigerBeetle version 0.17.9"; exit; fi\n'
        'exec tigerbeetle-emulator "$@"\n'
    )
    server.chmod(0o755)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with sandbox("inventories/process.py", TIGERBEETLE_BIN=str(server), PATH=path) as made:
        done = made.up()
        assert done.returncode == 1
        assert "replica 0 fatal" in done.stderr
        assert "error: SystemResources" in done.stderr
