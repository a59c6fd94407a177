"""No user ever sees a Python traceback for a condition of their machine.

Every command, as the command line lists them, on every machine of a catalogue; a new one of either
joins by itself. What is quick visits each machine with the commands that are about what is broken
there, and two machines with every command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from tests.operate import visit  # which fills the catalogue
from tests.operate.place import MACHINES

TIMEOUT_S = 1500
#: Done, failed, refused, down or missed, unknown, interrupted.
EXIT_CODES = (0, 1, 2, 3, 4, 130)
TRACE = re.compile(
    r"Traceback \(most recent call|^Exception ignored|^[\w.]+(Error|Exception)\b", re.M
)
TELLS = re.compile(r"Fix: |see above|Usage: ")

COMMANDS = visit.commands()
KINDS = sorted({name.partition(":")[0] for name in MACHINES})
_CLUSTER = ("status", "doctor", "backup", "restore", "logs", "quickstart", "backup-verify")
_RUNS = ("report", "audit", "compare", "gate", "check")
#: Kind of machine → the commands that are about it; the others are ``_CLUSTER``'s.
ABOUT = {
    "docker": ("compose-tb up", "compose-tb status", "status", "doctor", "compose-tb init"),
    "PATH": ("compose-tb status", "status", "init-env", "doctor"),
    "env file": ("config", "status", "compose-tb up"),
    "manifest": ("restore", "backup-verify", "backup", "status"),
    "backups": ("restore", "backup-verify", "backup"),
    "stdout": ("status", "report", "config", "logs"),
    "terminal": ("compare", "status", "load"),
    "inventory": ("inventory", "status", "run", "doctor"),
    "history": ("check",),
    "target.json": ("check",),
    "supervisor's socket": ("status", "backup", "run", "doctor"),
    "names": ("pin", "alerts", "status"),
    **dict.fromkeys(
        ("run.json", "result.json", "audit.json", "gate.json", "faults.jsonl", "record", "runs"),
        _RUNS,
    ),
}
#: On these, every command is run.
EVERYTHING_ON = ("state: unreadable", "data: gone")


def wrong(visited: dict[str, Any]) -> list[str]:
    """What a user should not have met; empty when all was as it should be."""
    said, code = visited["said"], visited["code"]
    found = [f"{found[0]}…" for found in [TRACE.search(said)] if found]
    if code not in EXIT_CODES:
        found.append(f"exit code {code}")
    if code == 2 and not TELLS.search(said):
        found.append("a refusal that does not say what to do")
    if re.search("^error: ", said, re.M) and not TELLS.search(said):
        found.append("an error that does not say what to do")
    if visited["gone"]:
        found.append(f"changed: {', '.join(visited['gone'])}")
    return found


def chosen(number: int, machine: str, commands: list[list[str]]) -> list[list[str]]:
    """Two of the commands that are about the machine, in turn; on some machines, all."""
    if machine in EVERYTHING_ON:
        return commands
    about = ABOUT.get(machine.partition(":")[0], _CLUSTER)
    names = {about[number % len(about)], about[(number + 1) % len(about)]}
    return [words for words in commands if names & {words[0], " ".join(words[:2])}]


@contextmanager
def visitor() -> Iterator[Any]:
    """A function that visits machines with commands, in a copy of the repository."""
    with tempfile.TemporaryDirectory(prefix="ws-") as name:
        directory = Path(name).resolve()
        copy = directory / "copy"
        copy.mkdir()
        visit.copy_repository(REPOSITORY, copy)

        def visits(pairs: Iterable[tuple[str, list[str]]], *options: str) -> list[dict[str, Any]]:
            done = subprocess.run(
                [sys.executable, "-m", "tests.operate.visit", str(directory), *options],
                cwd=copy,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                input="".join(json.dumps(pair) + "\n" for pair in pairs),
                stdout=subprocess.PIPE,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            )
            return [json.loads(line) for line in done.stdout.splitlines()]

        yield visits


def report(visits: list[dict[str, Any]]) -> str:
    """A line of each that went wrong, and the end of what it said."""
    return "\n".join(
        f"{each['machine']} | {' '.join(each['words'])} | {'; '.join(found)}\n"
        f"{each['said'][-1500:]}"
        for each in visits
        if (found := wrong(each))
    )


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 8))]
)
def test_a_broken_machine_is_told_in_words(part: int) -> None:
    """An eighth of them; the others with the long tests."""
    pairs = [
        (machine, words)
        for number, machine in enumerate(MACHINES)
        for words in chosen(number, machine, COMMANDS)
    ]
    with visitor() as visits:
        visited = visits(pairs[part::8])
    assert len(visited) == len(pairs[part::8])
    assert not report(visited)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_tells_every_broken_machine_in_words(kind: str) -> None:
    pairs = [(m, words) for m in MACHINES if m.partition(":")[0] == kind for words in COMMANDS]
    with visitor() as visits:
        visited = visits(pairs)
    assert len(visited) == len(pairs)
    assert not report(visited)


def test_every_command_is_visited() -> None:
    """So is one that is added later: the words come from the command line."""
    names = {words[0] for words in COMMANDS}
    assert {"status", "compose-tb", "load", "doctor"} <= names
    assert ["compose-tb", "up"] in COMMANDS


def test_a_command_that_raises_is_found() -> None:
    """The checker, fed what it is there to find."""
    with visitor() as visits:
        (visited,) = visits([("terminal: 20 columns", ["raises"])], "--with-one-that-raises")
    assert "KeyError: 'a condition of the machine'" in visited["said"]
    assert wrong(visited)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"said": "Traceback (most recent call last):\n"}, "Traceback"),
        ({"said": "json.decoder.JSONDecodeError: Expecting value"}, "JSONDecodeError"),
        ({"said": "Exception ignored in: <_io.TextIOWrapper>"}, "Exception ignored"),
        ({"code": 120}, "exit code 120"),
        ({"code": -6}, "exit code -6"),
        ({"code": 2, "said": "error: no"}, "a refusal that does not say what to do"),
        ({"code": 1, "said": "error: no"}, "an error that does not say what to do"),
        ({"gone": ["0_0.tigerbeetle"]}, "changed: 0_0.tigerbeetle"),
    ],
)
def test_the_checker_finds(change: dict[str, Any], says: str) -> None:
    well = {"code": 0, "said": "cluster: healthy\n", "gone": []}
    assert wrong(well) == []
    assert any(says in found for found in wrong(well | change))
