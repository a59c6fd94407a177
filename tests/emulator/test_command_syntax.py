"""Command lines against the genuine server: what it refuses is refused, what it takes is taken.

Each names a data file that is not there, so that nothing is started: a genuine server that takes
the line says `FileNotFound`. COMMAND_LINES=1000 COMMAND_LINE_SEED=7 tries more random ones.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import config
from cluster.tigerbeetle import binary
from tests.conftest import NO_SERVER
from tests.emulator.command_lines import LINES, TAKEN, random_line
from tigerbeetle_emulator.command_line.flags import UsageError
from tigerbeetle_emulator.command_line.verbs import read_command


def _of_the_emulator(arguments: list[str]) -> str:
    """What it is told, or that it is taken."""
    try:
        read_command(arguments)
    except UsageError as error:
        return str(error)
    return TAKEN


def _of_the_genuine(server: Path, arguments: list[str], directory: Path) -> str:
    done = subprocess.run(
        [server, *arguments], capture_output=True, cwd=directory, timeout=60, check=False
    )
    if done.returncode == 0:
        return TAKEN
    assert done.returncode == 1, done.stderr
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1]
    words = re.sub(r"^(\S+ \S+Z )?error(\(\w+\))?: ", "", last)
    return TAKEN if words == "FileNotFound" else words


@pytest.fixture(scope="module")
def genuine_server_binary() -> Path:
    """Only read its command line with it."""
    found = binary.find_tigerbeetle(config.load())
    if not found:
        pytest.skip(NO_SERVER)
    return Path(found)


@pytest.mark.parametrize("line", LINES)
def test_the_emulator_takes_or_refuses_a_command_line(line: str) -> None:
    assert _of_the_emulator(shlex.split(line)).startswith(LINES[line])


@pytest.mark.genuine
def test_the_genuine_server_takes_or_refuses_the_same_command_lines(
    genuine_server_binary: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        told = pool.map(
            lambda line: _of_the_genuine(genuine_server_binary, shlex.split(line), tmp_path), LINES
        )
        found = dict(zip(LINES, told, strict=True))
    assert {line: words for line, words in found.items() if not words.startswith(LINES[line])} == {}


# -- random command lines --------------------------------------------------------------------------


@pytest.mark.genuine
def test_random_command_lines_are_told_the_same_by_both(
    genuine_server_binary: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("COMMAND_LINE_SEED", "1"))
    choose = random.Random(seed)
    lines = [random_line(choose) for _ in range(int(os.environ.get("COMMAND_LINES", "150")))]
    with ThreadPoolExecutor(2) as pool:
        genuine = pool.map(
            lambda line: _of_the_genuine(genuine_server_binary, line, tmp_path), lines
        )
        differing = [
            (shlex.join(line), theirs, ours)
            for line, theirs in zip(lines, genuine, strict=True)
            if not (ours := _of_the_emulator(line)).startswith(theirs)
        ]
    assert differing == []


# -- the emulator's own ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--fault-evict=2", "--fault-evict: expected a rate 0..1, found 2"),
        ("--fault-evict=nan", "--fault-evict: expected a rate 0..1, found nan"),
        ("--fault-latency=-1", "--fault-latency: expected seconds >= 0, found -1"),
        ("--fault-latency=inf", "--fault-latency: expected seconds >= 0, found inf"),
        ("--fault-latency=1s", "--fault-latency: expected a number, found '1s'"),
        ("--fault-seed=1.5", "--fault-seed: expected an integer, found '1.5'"),
        ("--fault-evicts=1", "--fault-evict: expected value separator '=', but found 's'"),
        ("--fault-nonsense=1", "unexpected argument: '--fault-nonsense=1'"),
        ("--fault-evict=1 --fault-evict=1", "--fault-evict: duplicate argument"),
        ("--sync=always", "--sync: expected one of 'never' or 'every-request', but found 'always'"),
        ("--serve-all=yes", "--serve-all: expected one of 'true' or 'false', but found 'yes'"),
    ],
)
def test_a_wrong_value_of_the_emulator_s_own_is_refused_too(flags: str, words: str) -> None:
    told = _of_the_emulator(shlex.split(f"start --addresses=3000 {flags} no/file"))
    assert told.startswith(words)


@pytest.mark.parametrize("verb", ["recover", "repl", "benchmark", "multiversion", "amqp"])
def test_a_verb_of_the_genuine_server_alone_is_called_that(verb: str) -> None:
    told = _of_the_emulator([verb, "--addresses=3000", "--cluster=1"])
    assert told == (
        f"the emulator has no '{verb}'; it has format, start, version and inspect superblock"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("start no/file --addresses=3000", "options come before <path>"),
        ("start --addresses=3000 --help", "--help shows all options"),
        ("start --addresses=localhost:3000 no/file", "names are not resolved"),
        ("nonsense", "--help shows all"),
    ],
)
def test_a_refusal_says_what_to_do(line: str, words: str) -> None:
    assert words in _of_the_emulator(shlex.split(line))


def test_every_refusal_is_one_line_and_ends_with_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tigerbeetle_emulator", "start", "no/file", "--addresses=1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unexpected trailing option: '--addresses=1'")


def test_help_shows_what_has_an_effect() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tigerbeetle_emulator", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "not TigerBeetle" in done.stdout
    assert "--limit-request=SIZE" in done.stdout
    assert "--fault-stop-every=SECONDS" in done.stdout
