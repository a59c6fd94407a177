"""Run commands on broken machines: ``python -m tests.operate.visit DIRECTORY``, in a copy of the
repository. It reads lines of JSON, [machine, [word, ...]], and answers each with a line.

All commands are imported once. Each then runs in a process of its own, a fork, which may be given
limits, other rights or a closed output without harm to anything else. Programs of this environment
that it starts (pyinfra, locust, the canary) fail at once, and no cluster answers its client: what
they would cost is most of a command's time.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import click

from cluster import cli
from cluster.config import PREFIX
from loadtests.client import bridge
from loadtests.run import history
from tests.leases import addresses, free_ports
from tests.load import samples
from tests.operate import machines, programs  # noqa: F401 - they fill the catalogue
from tests.operate.place import MACHINES, Place
from tests.unit.test_backup_set import made_set

_SAID_MAX = 1024**2
#: Longer than anything waits for an answer; a command that goes on is one that only asks again.
TIMEOUT_S = 30.0
EMULATOR = (sys.executable, "-m", "tigerbeetle_emulator")
COPIED = "cluster env files inventories loadtests monitoring tasks tests tigerbeetle_emulator"
FILES = "config.py deploy.py docker-compose.tb.yaml docker-compose.monitoring.yaml"


def copy_repository(source: Path, to: Path) -> None:
    """What the commands read, so that it can be broken."""
    for name in COPIED.split():
        ignored = shutil.ignore_patterns("__pycache__", "*.local.env", "production.env")
        shutil.copytree(source / name, to / name, ignore=ignored)
    for name in FILES.split():
        shutil.copy(source / name, to / name)


def whole(directory: Path) -> Path:
    """The data of a machine on which all is well, but for the replicas: they are stopped."""
    data = directory / "whole"
    for index in range(3):
        place = data / "emulator" / f"replica-{index}"
        place.mkdir(parents=True)
        identity = ["--cluster=0", f"--replica={index}", "--replica-count=3"]
        formatted = [*identity, str(place / f"0_{index}.tigerbeetle")]
        subprocess.run([*EMULATOR, "format", *formatted], check=True, capture_output=True)
        (place / "replica.log").write_text("2026-11-24 00:00:00.000Z info(main): release=0.17.9\n")
    (data / "emulator" / "supervisord.conf").write_text("[supervisord]\n")
    backup = data / "backups" / "emulator" / "20261124T000000Z"
    made_set(backup, deployment="emulator", engine="emulator", cluster_id="0")
    run = data / "runs" / samples.manifest().run
    run.mkdir(parents=True)
    target = samples.manifest().target.model_copy(update={"cluster_id": "0"})  # this cluster's
    manifest = samples.manifest().model_copy(update={"target": target})
    (run / "run.json").write_text(manifest.model_dump_json())
    (run / "target.json").write_text(target.model_dump_json())
    (run / "result.json").write_text(samples.result().model_dump_json())
    (run / "audit.json").write_text(samples.audit().model_dump_json())
    (run / "gate.json").write_text("[]")
    (run / "faults.jsonl").write_text('{"at": 1.0, "what": "a fault"}\n')
    (run / "record-0.bin").write_bytes(b"")
    written = history.Writer(run)
    written.add(history.Operation(0, 0, 0, "lookup_accounts", "read", 1, 2, "ok", ids=(1,)))
    written.close()
    record = data / "records" / "emulator" / "emulator-0-0.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"place": "x", "since": datetime.now(UTC).isoformat()}))
    return data


@cache
def _ports() -> Sequence[int]:
    """On which nothing listens, until a machine is one on which something does."""
    return free_ports(3)


def place_of(directory: Path) -> Place:
    """A whole machine of its own, below ``directory``."""
    data, first, home = directory / "data", directory / "bin", directory / "home"
    shutil.copytree(directory.parent / "whole", data)
    first.mkdir()
    home.mkdir()
    environ = {
        **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
        **addresses(_ports()),
        f"{PREFIX}DATA_DIR": str(data),
        "RECORDS_DIR": str(data / "records"),
        "BACKUP_DIR": str(data / "backups"),
        "LOADTESTS_RUNS": str(data / "runs"),
        "INVENTORY": "inventories/emulator.py",
        "DOCKER_HOST": f"unix://{directory}/no-docker.sock",  # never this machine's own engine
        "COMPOSE_PROJECT_NAME": "ws-test-broken",
        "HOME": str(home),
        "TMPDIR": str(home),
        "COLUMNS": "200",
    }
    environ["PATH"] = f"{first}:{environ['PATH']}"
    return Place(Path.cwd(), data, first, environ)


def listing(directory: Path) -> dict[str, int]:
    """Every file that holds a ledger or a backup, and its size: what no command may take away."""
    kept = ("*.tigerbeetle", "manifest.json", "replica-*.gz", "record-*.bin", "history.jsonl")
    return {
        str(path.relative_to(directory)): path.lstat().st_size
        for pattern in kept
        for path in directory.rglob(pattern)
    }


def visit(directory: Path, machine: str, words: list[str]) -> dict[str, Any]:
    """Run one command on one machine: how it ended, what it said, and what is gone."""
    directory.mkdir()
    env_file = Path("env/tigerbittle.env")
    env_text = env_file.read_bytes()
    place = place_of(directory)
    before: dict[str, int] = {}
    try:
        MACHINES[machine](place)
        before = listing(directory)
        begun = time.monotonic()
        reading, writing = os.pipe()  # no file: a full disk is not to hide what is said of it
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _SAID_MAX)
        os.set_blocking(reading, False)  # what a command has left running may keep it open
        child = os.fork()
        if child == 0:
            _command(place, words, writing)
        os.close(writing)
        code = _ended(child)
        took = time.monotonic() - begun
        said = b""
        with suppress(BlockingIOError):
            said = os.read(reading, _SAID_MAX)
        os.close(reading)
    finally:
        for end in place.at_end:
            end()
        if env_file.is_dir():
            env_file.rmdir()
        env_file.write_bytes(env_text)
    after = listing(directory)
    gone = sorted(name for name in before if after.get(name) != before[name])
    shutil.rmtree(directory)
    text = said.decode(errors="replace")
    told = {"code": code, "said": text, "gone": gone, "took": took}
    return {"machine": machine, "words": words, **told}


def _ended(child: int) -> int:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _command(place: Place, words: list[str], said: int) -> None:
    """In the fork: become the machine, be ``python -m cluster WORDS``, and end."""
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(place.environ)
        unread, broken = os.pipe()
        os.close(unread)
        out = {"": said, "closed": said, "broken": broken}.get(place.stdout)
        for number, file in enumerate(
            (
                os.open(os.devnull, os.O_RDONLY),
                os.open(place.stdout, os.O_WRONLY) if out is None else out,
                said,
            )
        ):
            os.dup2(file, number)
        os.closerange(3, 64)
        if place.stdout == "closed":
            os.close(1)
            sys.stdout = None  # as Python does
        sys.argv = ["cluster", *words]
        _start_nothing_of_ours()
        for suffer in place.suffers:
            suffer()
        runpy.run_module("cluster", run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    code = _flushed(code)
    os._exit(code)


def _flushed(code: int) -> int:
    """As at Python's own end: what cannot be written then is told, and is its code."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        os.write(2, f"Exception ignored: {error!r}\n".encode())
        return 120
    return code


def _start_nothing_of_ours() -> None:
    def silent(*_: object) -> None:
        raise bridge.Unanswered

    bridge.NativeClient.call = silent  # type: ignore[method-assign, assignment]
    ours, real = str(Path(sys.executable).parent), subprocess.Popen

    class Popen(real):  # type: ignore[misc, valid-type]
        def __init__(self, command: Any, *arguments: Any, **options: Any) -> None:
            if isinstance(command, list | tuple) and str(command[0]).startswith(ours):
                command = ["/bin/false"]
            super().__init__(command, *arguments, **options)

    subprocess.Popen = Popen  # type: ignore[assignment, misc]


def commands(group: click.Group = cli.commands, above: tuple[str, ...] = ()) -> list[list[str]]:
    """The words of every command, from the command line itself, with what it must be told."""
    found: list[list[str]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        words = (*above, name)
        if isinstance(command, click.Group):
            found += commands(command, words)
        else:
            found.append([*words, *_needed(" ".join(words), command)])
    return found


#: What a command is told so that it comes to the machine; others are told what they require.
TOLD = {
    "run": "tasks.preflight.check",  # a deploy that may go on starts replicas
    "init-env": "--out /proc/nowhere/x.env",
    "migrate": "--from inventories/emulator.py --to 1@127.0.0.1:1",
    "upgrade": "0.17.9",
    "restore": "--from 20261124T000000Z",
    "recover": "--replica 1",
    "planned-stop": "stop",
    "compare": f"{samples.manifest().run} {samples.manifest().run}",
    "gate": "loadtests/gate.toml",
    "load": "--run-time 1",
    "workload": "--run-time 1",
}


def _needed(name: str, command: click.Command) -> list[str]:
    if name in TOLD:
        return TOLD[name].split()
    words: list[str] = []
    for parameter in command.params:
        if parameter.required:
            option = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
            words += [*option, *["1"] * max(parameter.nargs, 1)]
    return words


@click.command()
def raises() -> None:
    """For the checker: what no command may do."""
    raise KeyError("a condition of the machine")


def main() -> None:
    """Answer every line."""
    directory = Path(sys.argv[1])
    for section in cli.COMMANDS.values():
        for where, _ in section.values():
            importlib.import_module(where.partition(":")[0])
    for late in ("encodings.idna", "pprint", "jinja2", "psutil", "tigerbeetle"):
        importlib.import_module(late)
    if "--with-one-that-raises" in sys.argv:
        cli.COMMANDS["Tests"] = {"raises": (f"{__name__}:raises", "Raise what nobody expects.")}
    whole(directory)
    gc.freeze()
    os.environ.setdefault("PATH", os.defpath)
    for number, line in enumerate(sys.stdin):
        machine, words = json.loads(line)
        print(json.dumps(visit(directory / str(number), machine, words)), flush=True)


if __name__ == "__main__":
    main()
