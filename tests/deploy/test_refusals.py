"""What a deploy must not do, it refuses with one clear line, before anything is started.

That a refused check ends a deploy is shown once, by a deploy; the others are asked of the same
checks.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path

from cluster.checks import existence
from tests.clusters import Sandbox, kill_below, sandbox
from tests.deploy.decisions import format_files, refusal


def test_a_port_in_use_ends_the_deploy_and_is_named_with_its_holder(emulator: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", emulator.ports[1])):
        done = emulator.up()
        asked = refusal(emulator)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Starting operation" not in done.stderr
    for error in (done.stderr, asked):
        free = f"expected 127.0.0.1:{emulator.ports[1]} to be free"
        assert f"LU_CFG_TIGERBEETLE_1_PORT: {free}" in error
        assert f"found pid {os.getpid()} (" in error
    assert not emulator.state_dir.exists()


def test_a_program_has_the_verdict_s_exit_code_and_make_prints_it(emulator: Sandbox) -> None:
    """Make itself ends with 2 whatever its recipe ends with: pages say how the code is had."""
    done = emulator.run("python", "-m", "cluster", "status", "--no-canary")
    assert done.returncode == 3, done.stdout + done.stderr
    done = emulator.run("make", "status")
    assert done.returncode == 2
    assert "Error 3" in done.stderr
    with emulator.having(LU_CFG_TIGERBEETLE_SUBNET="nowhere"):
        assert emulator.run("python", "-m", "cluster", "status").returncode == 2
        done = emulator.run("make", "status")
    assert (done.returncode, "Error 2" in done.stderr) == (2, True)


def test_an_unformatted_data_file_is_not_formatted_over(emulator: Sandbox) -> None:
    for index in range(3):
        emulator.data_file(index).parent.mkdir(parents=True)
        emulator.data_file(index).write_bytes(bytes(4096))
    assert "0_0.tigerbeetle: expected a formatted data file" in refusal(emulator)
    assert emulator.data_file(0).read_bytes() == bytes(4096)


def test_a_data_file_of_another_cluster_is_refused(emulator: Sandbox) -> None:
    format_files(emulator, 0, 1, 2, LU_CFG_TIGERBEETLE_CLUSTER_ID="7")
    for index in range(3):
        foreign = emulator.data_file(index).with_name(f"7_{index}.tigerbeetle")
        foreign.rename(emulator.data_file(index))
    error = refusal(emulator)
    assert "expected the data file of cluster 0, replica 0 of 3, found that of cluster 7" in error


def test_swapped_data_files_are_refused(emulator: Sandbox) -> None:
    format_files(emulator, 0, 1, 2)
    aside = emulator.directory / "aside"
    emulator.data_file(0).rename(aside)
    emulator.data_file(1).rename(emulator.data_file(0))
    aside.rename(emulator.data_file(1))
    assert "replica 0: expected the data file of cluster 0, replica 0 of 3" in refusal(emulator)


def test_a_lost_data_file_is_not_formatted_anew(emulator: Sandbox) -> None:
    format_files(emulator, 0, 1)
    error = refusal(emulator)
    assert "replica 2: expected a data file, since the other replicas have theirs" in error
    assert "recover" in error


def test_a_cluster_whose_data_is_all_gone_is_made_anew_only_by_a_word(emulator: Sandbox) -> None:
    with emulator.entered():
        existence.note(emulator.deployment)  # as its first deploy does
    error = refusal(emulator)
    assert f"found none in {emulator.state_dir}, though it has existed: noted in" in error
    assert "`make restore INVENTORY=inventories/emulator.py FROM=`" in error
    (typed,) = re.findall("`(make up [^`]*)`", error)
    assert not emulator.state_dir.exists()
    done = emulator.run(*shlex.split(typed))
    assert done.returncode == 0, done.stderr[-3000:]
    assert emulator.data_file(2).exists()


def test_of_a_cluster_that_a_deploy_has_made_it_is_known_that_it_exists(emulator: Sandbox) -> None:
    assert emulator.up().returncode == 0
    kill_below(emulator.directory)
    shutil.rmtree(emulator.state_dir)
    assert "though it has existed: noted in" in refusal(emulator)


def test_where_nothing_is_deployed_each_command_says_so_in_a_line(emulator: Sandbox) -> None:
    for command in (["backup"], ["recover", "--replica=1"]):
        done = emulator.call(*command)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr
    verified = emulator.run("make", "verify")
    assert verified.returncode == 2
    told = "verify: expected replicas that run, found none of emulator. Fix: make up INVENTORY="
    assert told in verified.stdout + verified.stderr
    assert "failed" not in verified.stdout
    assert not emulator.state_dir.exists()


def test_a_changed_cluster_id_does_not_make_another_cluster_beside(emulator: Sandbox) -> None:
    format_files(emulator, 0, 1, 2)
    emulator.overrides["LU_CFG_TIGERBEETLE_CLUSTER_ID"] = "7"
    error = refusal(emulator)
    assert "expected no data file but 7_0.tigerbeetle, found 0_0.tigerbeetle" in error


def test_an_interrupted_first_format_is_finished(emulator: Sandbox) -> None:
    """As if it had been killed after the first rename, a half-written file left behind."""
    format_files(emulator, 0)
    first = emulator.data_file(0).stat().st_ino
    emulator.data_file(1).parent.mkdir()
    emulator.data_file(1).with_name("0_1.tigerbeetle.partial").write_bytes(b"half")
    (emulator.state_dir / "bootstrapping").touch()
    done = emulator.up()
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (emulator.state_dir / "bootstrapping").exists()
    assert emulator.data_file(0).stat().st_ino == first
    assert emulator.data_file(2).exists()


def test_a_state_directory_with_too_long_a_path_is_refused(emulator: Sandbox) -> None:
    error = refusal(emulator, state_dir=emulator.directory / ("d" * 100))
    assert "expected a socket path of at most 96 characters" in error


def test_a_missing_server_is_refused_with_three_ways_out(emulator: Sandbox) -> None:
    with emulator.having(PATH="/usr/bin:/bin", TIGERBEETLE_BIN=""):
        error = refusal(emulator, engine="tigerbeetle")
    assert "expected the server in TIGERBEETLE_BIN or on PATH, found none" in error
    assert "make download" in error
    assert "inventories/emulator.py" in error


def test_a_server_of_another_release_is_refused(emulator: Sandbox, tmp_path: Path) -> None:
    server = tmp_path / "tigerbeetle"
    server.write_text("#!/bin/sh\necho TigerBeetle version 0.17.4\n")
    server.chmod(0o755)
    with emulator.having(TIGERBEETLE_BIN=str(server)):
        error = refusal(emulator, engine="tigerbeetle")
    assert "expected the server to be 0.17.9, found 0.17.4" in error


def test_the_emulator_is_not_taken_for_the_genuine_server(emulator: Sandbox) -> None:
    with emulator.having(TIGERBEETLE_BIN=str(Path(sys.executable).parent / "tigerbeetle-emulator")):
        error = refusal(emulator, engine="tigerbeetle")
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
    settings = {"TIGERBEETLE_BIN": str(server), "PATH": path}
    with sandbox("inventories/process.py", 3, False, **settings) as made:
        done = made.up()
        assert done.returncode == 1
        assert "replica 0 fatal" in done.stderr
        assert "error: SystemResources" in done.stderr
