"""What a machine refuses ends in one line with the fix, and never in a traceback."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from cluster import REPOSITORY, cli
from cluster.config import kept
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import container, docker_engine, process
from cluster.runtimes.process import Process
from loadtests.report import gate
from loadtests.run import history
from loadtests.run.result import read_audit, read_manifest, read_result
from tasks import monitoring
from tests.clusters import Sandbox

OURS = [sys.executable, "-m", "cluster"]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "mount it for writing"),
        (errno.EACCES, "as whoever owns it"),
        (errno.ENOENT, "install it"),
        (errno.EIO, "its disk"),
    ],
)
def test_an_error_of_the_machine_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, fix: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/of/it")

    monkeypatch.setattr(cli.commands, "main", fail)
    assert cli.main(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: /data/of/it: expected to read, write or run it, found ")
    assert os.strerror(number) in line
    assert fix in line


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    hosts = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
    out = "/proc/nowhere/x.local.env"
    done = subprocess.run(
        [*OURS, "init-env", *hosts, "--out", out],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: /proc/nowhere")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"'{sys.executable}' -m cluster config | true"
    done = subprocess.run(
        command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("said", ["<html>", "null", "7", "[7]", "[{}]", "[null]"])
def test_what_is_no_answer_of_an_engine_is_refused(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    done = subprocess.CompletedProcess(["docker"], 0, said, "")
    monkeypatch.setattr(docker_engine, "run", lambda *_, **__: done)
    with pytest.raises(Refusal, match=r"`docker container inspect`: expected the answer of a"):
        container.named(["tigerbeetle-0"])
    with pytest.raises(Refusal, match="docker"):
        docker_engine.info()


def differing_of(deployment: Deployment, socket: Path) -> object:
    configuration = socket.with_name("supervisord.conf")
    configuration.write_text("as wanted")
    return process.differing(configuration, socket, "as wanted")


@pytest.mark.parametrize("said", [7, [{}], [{"name": 7, "statename": "RUNNING"}]])
@pytest.mark.parametrize(
    ("at", "look"),
    [
        ("supervisor.sock", lambda deployment, _: Process(deployment).states()),
        ("supervisor.sock", differing_of),
        ("monitoring/supervisor.sock", lambda deployment, _: monitoring._running(deployment)),
    ],
    ids=["replicas", "configuration", "monitoring"],
)
def test_another_supervisor_is_not_taken_for_ours(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    at: str,
    look: Callable[[Deployment, Path], object],
    said: object,
) -> None:
    deployment = Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3)).deployment
    socket_path = deployment.state_dir / at
    socket_path.parent.mkdir(parents=True)
    socket_path.touch()
    answers = mock.Mock(return_value=said)
    proxy = mock.Mock(getAllProcessInfo=answers, reloadConfig=answers)
    monkeypatch.setattr(xmlrpc.client, "ServerProxy", lambda *_: mock.Mock(supervisor=proxy))
    with pytest.raises(Refusal, match=r"supervisor\.sock: expected this deployment's supervisor"):
        look(deployment, socket_path)


@pytest.mark.parametrize("said", [b"\0\1\xff\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b""])
def test_what_is_no_supervisor_does_not_answer(tmp_path: Path, said: bytes) -> None:
    runtime = Process(Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3)).deployment)
    runtime.socket_path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(runtime.socket_path))
        listening.listen()

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(10)
                caller.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        assert runtime.states() is None


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"run": 7}', "\xff"])
@pytest.mark.parametrize("name", ["run.json", "result.json", "audit.json", "gate.json"])
def test_a_broken_file_of_a_run_is_named(tmp_path: Path, name: str, text: str) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "run.json": read_manifest,
        "result.json": read_result,
        "audit.json": read_audit,
        "gate.json": gate.read_findings,
    }
    (tmp_path / name).write_text(text, encoding="latin-1")
    if (name, text) == ("gate.json", "[]"):
        return  # no findings
    with pytest.raises(Refusal, match=rf"{name}: expected what a run writes, found .*Fix: bring"):
        readers[name](tmp_path)


@pytest.mark.parametrize(
    "text", ["[]\n", "null\n", "7\n", '{"end": []}\n{"number": 1}\n', "\xff\n"]
)
def test_a_line_that_is_no_operation_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / history.FILE).write_text(text, encoding="latin-1")
    with pytest.raises(Refusal, match="expected"):
        history.read(tmp_path)


def test_an_operation_of_other_types_is_refused(tmp_path: Path) -> None:
    line = {"number": 1, "worker": {}, "session": 0, "kind": "x", "action": "x", "invoked": 1}
    (tmp_path / history.FILE).write_text(json.dumps(line) + "\n")
    with pytest.raises(Refusal, match=r"expected an operation, found .* values of other types"):
        history.read(tmp_path)


def test_a_home_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_DIR", "~nobody-has-this-name/x")
    with pytest.raises(Refusal, match=r"expected the home of a user.* Fix: set HOME"):
        kept.backups()


def test_closed_or_full_output_is_no_crash() -> None:
    ours = f"'{sys.executable}' -m cluster config"
    for redirected, code in ((">&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1)):
        done = subprocess.run(
            f"{ours} {redirected}", shell=True, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == code, redirected
        assert "Exception" not in done.stderr
        assert ("make room" in done.stderr) == (code == 1)


@pytest.mark.parametrize("is_under_gevent", [False, True])
def test_a_program_that_prints_noise_is_no_crash(tmp_path: Path, is_under_gevent: bool) -> None:
    """Under pyinfra, gevent's own subprocess does not replace what is no UTF-8."""
    for name in ("docker", "tigerbeetle"):
        (tmp_path / name).write_text("#!/bin/sh\nprintf '\\377\\376'\n")
        (tmp_path / name).chmod(0o755)
    patch = "from gevent import monkey; monkey.patch_all()\n" * is_under_gevent
    asked = (
        f"{patch}from cluster.refusal import Refusal\n"
        "from cluster.runtimes import docker_engine\n"
        "from cluster.tigerbeetle import binary\n"
        "for ask in docker_engine.info, lambda: binary.release_of(['tigerbeetle']):\n"
        "    try: ask()\n"
        "    except Refusal as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    docker, server = done.stdout.splitlines()
    assert docker.startswith("docker: expected an engine that answers")
    assert server.startswith("tigerbeetle: expected 'TigerBeetle version X.Y.Z', found")
