"""The package as its users install it: alone, typed, beside modules of any name, on any Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import HeaderParser
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

from cluster import REPOSITORY

UV = next(
    (str(path) for path in sorted(REPOSITORY.glob(".uv/*/uv"), reverse=True)), shutil.which("uv")
)
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_PACKAGE = REPOSITORY / "tigerbeetle_emulator"
#: What pytest needs, taken from this environment: the tests ask no index for anything.
_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")

pytestmark = pytest.mark.skipif(UV is None, reason="this environment was built without uv")


def _run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, capture_output=True, text=True, timeout=300, check=False, **options
    )


def _succeed(*command: str | Path, **options: object) -> str:
    done = _run(*command, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def _python(version: str) -> str | None:
    """A Python of this version: this one, one on PATH, or one of pyenv's, which may be hidden."""
    candidates = [sys.executable, shutil.which(f"python{version}")]
    candidates += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    return next(
        (
            each
            for each in candidates
            if each and _run(each, "-c", script).stdout.strip() == version
        ),
        None,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a source distribution, as from a checkout without anything that git ignores."""
    place = tmp_path_factory.mktemp("wheel")
    _succeed(str(UV), "build", "--offline", "--quiet", "--out-dir", place, REPOSITORY)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Callable[..., Path]:
    """Makes an environment of a Python, with nothing in it but the package; gives its python.

    Asked again, it gives the same; one that something is added to has a name of its own.
    """

    @cache
    def make(version: str, name: str = "empty") -> Path:
        program = _python(version)
        if program is None:
            pytest.skip(f"no python {version} on this machine")
        place = tmp_path_factory.mktemp(name) / version
        _succeed(str(UV), "venv", "--quiet", "--python", program, place)
        python = place / "bin" / "python"
        options = ("--offline", "--no-index", "--quiet", "--python", python)
        _succeed(str(UV), "pip", "install", *options, wheel)
        return python

    return make


@pytest.fixture
def installed(environment: Callable[..., Path]) -> Path:
    """The python of an environment like this one, with the package alone."""
    return environment(".".join(map(str, sys.version_info[:2])))


@pytest.fixture(scope="module")
def with_pytest(environment: Callable[..., Path]) -> Path:
    """The same with pytest, as a wallet's own environment has it."""
    python = environment(".".join(map(str, sys.version_info[:2])), "pytest")
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    for name in _PYTEST:
        for file in distribution(name).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    return python


# -- what is in it ---------------------------------------------------------------------------------


def test_the_wheel_holds_the_emulator_alone_and_all_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        told = HeaderParser().parsestr(archive.read(metadata).decode())
    files = {name for name in names if ".dist-info/" not in name}
    tracked = _succeed("git", "ls-files", "tigerbeetle_emulator", cwd=REPOSITORY).split()
    assert files == set(tracked)
    assert "tigerbeetle_emulator/py.typed" in files
    required = told.get_all("Requires-Dist") or []
    assert all("extra == 'fast'" in each for each in required)
    assert told["Requires-Python"] == ">=3.10"


@pytest.mark.parametrize("version", PYTHONS)
def test_it_serves_in_an_empty_environment_of_each_python(
    version: str, environment: Callable[..., Path], tmp_path: Path
) -> None:
    python = environment(version)
    (tmp_path / "tests" / "emulator").mkdir(parents=True)
    for name in ("raw", "records"):
        shutil.copyfile(
            REPOSITORY / f"tests/emulator/{name}.py", tmp_path / f"tests/emulator/{name}.py"
        )
    (tmp_path / "user.py").write_text(_USER)
    said = _succeed(python, "-W", "error", "user.py", cwd=tmp_path).split()
    assert said == [version, "overdraft", "refused", "54"]
    listed = _succeed(str(UV), "pip", "list", "--quiet", "--python", python, "--format", "freeze")
    assert [line.partition("==")[0] for line in listed.split()] == ["wallet-service"]
    command = python.with_name("tigerbeetle-emulator")
    assert "0.17.9" in _succeed(command, "version")


#: Written for the standard library alone: the official client is not needed to see that it serves.
_USER = """
import sys
import tigerbeetle_emulator
from tests.emulator import raw, records

def account(**fields):
    return records.pack(records.ACCOUNT, ledger=1, code=1, **fields)

def serve(**options):
    with tigerbeetle_emulator.run(**options) as cluster:
        with raw.RawClient(int(cluster.address.rpartition(":")[2])) as client:
            client.register()
            client.batches(records.CREATE_ACCOUNTS, [account(id=1) + account(id=2, flags=2)])
            transfer = records.pack(
                records.TRANSFER, id=1, debit_account_id=2, credit_account_id=1, amount=1,
                ledger=1, code=1,
            )
            answer = client.batches(records.CREATE_TRANSFERS, [transfer])
            body = raw.multi_batch(
                records.QUERY_TRANSFERS, [records.pack(records.QUERY_FILTER, limit=9)]
            )
            client.batches(records.QUERY_TRANSFERS, [records.pack(records.QUERY_FILTER, limit=9)])
            (results,) = raw.split_batches(answer.body, 16)
            return records.unpack(records.CREATE_RESULT, results)[0]["status"]

status = serve()
print("%d.%d" % sys.version_info[:2], "overdraft", "refused", status)
"""


# -- beside a project's own modules ----------------------------------------------------------------

_WALLET_TEST = """
import emulator
from emulator import answer

def test_the_wallet_has_its_own_emulator(tigerbeetle_emulator):
    assert answer == 42
    assert "tigerbeetle" not in (emulator.__file__ or "")
    assert tigerbeetle_emulator.cluster_id == 0
"""
_LAYOUTS = {
    "a module": {"emulator.py": "answer = 42"},
    "a package that has the emulator's rooms": {
        "emulator/__init__.py": "from .server import answer",
        "emulator/server.py": "answer = 42",
        "emulator/ledger.py": "",
        "emulator/protocol.py": "",
        "emulator/pytest_plugin.py": "raise SystemExit(3)",
    },
    "a module below src": {"src/emulator.py": "answer = 42"},
}


def _project(files: dict[str, str], place: Path) -> None:
    for name, text in {**files, "test_wallet.py": _WALLET_TEST}.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    source = "src" if any(name.startswith("src/") for name in files) else "."
    (place / "pytest.ini").write_text(f"[pytest]\npythonpath = {source}\n")


@pytest.mark.parametrize("how", ["pytest", "python -m pytest"])
@pytest.mark.parametrize("layout", _LAYOUTS)
def test_a_project_with_an_emulator_of_its_own_is_not_disturbed(
    layout: str, how: str, with_pytest: Path, tmp_path: Path
) -> None:
    _project(_LAYOUTS[layout], tmp_path)
    start = "import sys, pytest; sys.path[:] = [p for p in sys.path if p]; sys.exit(pytest.main())"
    arguments = ("-m", "pytest") if how.startswith("python") else ("-c", start)
    done = _run(with_pytest, *arguments, "-q", cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["replica", "journal", "faults", "embedded", "wire"])
def test_no_name_of_the_package_is_taken_but_its_own(module: str, installed: Path) -> None:
    done = _run(installed, "-c", f"import {module}")
    assert f"No module named '{module}'" in done.stderr


# -- types -----------------------------------------------------------------------------------------

_TYPED = """
import tigerbeetle_emulator
from tigerbeetle_emulator import Emulator, Faults, run


def address(cluster: Emulator) -> str:
    return cluster.address


def use() -> int:
    with run(cluster=7, faults=Faults(latency=0.1)) as cluster:
        cluster.stop()
        cluster.start()
        cluster.faults.drop_replies = 0.5
        assert address(cluster)
        return cluster.cluster_id


def with_the_fixture(tigerbeetle_emulator: tigerbeetle_emulator.Emulator) -> str:
    return address(tigerbeetle_emulator)
"""
_UNTYPED = {
    "run(clusters=7)": "call-arg",
    "run(cluster='7')": "arg-type",
    "Faults(latency='slow')": "arg-type",
    "address(7)": "arg-type",
    "use().address": "attr-defined",
}


def _mypy(python: Path, place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ("--strict", "--no-error-summary", "--cache-dir", str(place / ".mypy_cache"))
    return _run(
        *(sys.executable, "-m", "mypy", *arguments, "--python-executable", python),
        *(*options, "wallet.py"),
        cwd=place,
    )


def test_a_user_s_strict_mypy_knows_every_type(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "wallet.py").write_text(_TYPED)
    assert _mypy(installed, tmp_path).stdout == ""
    (tmp_path / "wallet.py").write_text(_TYPED + "".join(f"{each}\n" for each in _UNTYPED))
    said = _mypy(installed, tmp_path).stdout.splitlines()
    found = [line.rpartition("[")[2].rstrip("]") for line in said if ": error:" in line]
    assert found == list(_UNTYPED.values())


# -- platforms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["win32", pytest.param("darwin", marks=pytest.mark.long)])
def test_the_server_in_memory_uses_nothing_that_a_platform_lacks(
    platform: str, tmp_path: Path
) -> None:
    # typeshed knows what each platform's standard library has. A data file needs POSIX.
    cache = str(tmp_path / "cache")
    lowest = ("--platform", platform, "--python-version", "3.10", "--cache-dir", cache)
    said = _run(sys.executable, "-m", "mypy", *lowest, str(_PACKAGE), cwd=REPOSITORY).stdout
    errors = [line for line in said.splitlines() if ": error:" in line]
    posix = "tigerbeetle_emulator/server/journal.py:" if platform == "win32" else "nothing"
    assert [line for line in errors if not line.startswith(posix)] == []
    assert "checked" in said or "no issues" in said


def test_a_ledger_in_memory_is_served_where_posix_is_missing(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "tests" / "emulator").mkdir(parents=True)
    for name in ("raw", "records"):
        shutil.copyfile(
            REPOSITORY / f"tests/emulator/{name}.py", tmp_path / f"tests/emulator/{name}.py"
        )
    (tmp_path / "user.py").write_text(_WITHOUT_POSIX + _USER + _NO_DATA_FILE)
    said = _succeed(installed, "user.py", cwd=tmp_path)
    assert said.split()[1:4] == ["overdraft", "refused", "54"]
    assert "expected a system with fcntl" in said


_WITHOUT_POSIX = """
import os, pathlib, random, selectors, signal, socket, subprocess, sys, threading, logging
for name in ("fcntl", "termios", "pwd", "grp", "resource", "syslog"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "writev", "readv", "fdatasync", "getuid", "geteuid",
             "sched_getaffinity", "pwrite", "pread", "openpty", "killpg", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGCHLD", "SIGALRM", "pthread_sigmask"):
    delattr(signal, name)
for name in ("SO_REUSEPORT", "MSG_DONTWAIT", "MSG_NOSIGNAL"):
    delattr(socket, name)
for name in ("EpollSelector", "PollSelector"):
    delattr(selectors, name)
selectors.DefaultSelector = selectors.SelectSelector

def missing(self, *arguments):
    raise AttributeError("not on this platform")

for name in ("sendmsg", "recvmsg"):
    setattr(socket.socket, name, property(missing))
sys.platform = "win32"
"""
_NO_DATA_FILE = """
try:
    serve(path="0.tigerbeetle")
except Exception as error:
    print(error)
"""


def test_what_is_promised_of_pythons_is_what_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={PYTHONS[0]}"
    text = (REPOSITORY / "docs/emulator.md").read_text()
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in text
