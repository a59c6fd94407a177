"""The fixtures in somebody else's test suite, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
QUIETLY = (sys.executable, "-m", "pytest", "-q", "-p", "no:locust", "-p", "no:cacheprovider")

CONFTEST = """
import pytest
from tests.emulator.book import Book

@pytest.fixture(scope="session")
def shared(tigerbeetle_emulator_session):
    with Book(tigerbeetle_emulator_session) as book:
        yield book
"""

#: Ten tests that each want an empty ledger behind one client, and each leave a mess behind.
EMPTY = """
import os
import pytest

@pytest.mark.parametrize("number", range(10))
def test_the_ledger_is_empty(tigerbeetle_empty_ledger, shared, number):
    if getattr(shared, "gone", False):
        shared.reconnect()
    shared.gone = number == 5
    assert tigerbeetle_empty_ledger.faults.drop_replies == 0
    assert os.environ["TB_ADDRESS"] == tigerbeetle_empty_ledger.address
    assert shared.accounts() == []
    shared.open()
    assert shared.pay(1)["timestamp"] < 2_500_000_000 * 10**9
    tigerbeetle_empty_ledger.advance(10**9 * (number == 3))
    tigerbeetle_empty_ledger.faults.drop_replies = 1.0
    if shared.gone:
        tigerbeetle_empty_ledger.stop()
    with open(os.environ["ADDRESSES"], "a") as file:
        print(tigerbeetle_empty_ledger.address, file=file)
"""

SCOPES = """
import pytest
from tests.emulator.book import Book

seen = {}

@pytest.mark.parametrize("number", range(2))
def test_a_scope_has_one_emulator(
    number, tigerbeetle_emulator, tigerbeetle_emulator_module, tigerbeetle_emulator_session
):
    seen.setdefault("function", set()).add(id(tigerbeetle_emulator))
    with Book(tigerbeetle_emulator) as own, Book(tigerbeetle_emulator_module) as module:
        assert own.accounts() == []
        own.open()
        assert len(module.accounts()) == 2 * number
        module.open()
    addresses = {
        tigerbeetle_emulator.address,
        tigerbeetle_emulator_module.address,
        tigerbeetle_emulator_session.address,
    }
    assert len(addresses) == 3
"""

OTHER_MODULE = """
from tests.emulator.book import Book

def test_another_module_has_another_emulator(tigerbeetle_emulator_module):
    with Book(tigerbeetle_emulator_module) as book:
        assert book.accounts() == []
"""

NOT_EXPORTED = """
import os

def test_nothing_is_exported_unasked(tigerbeetle_emulator):
    assert "TB_ADDRESS" not in os.environ
"""


def _run(directory: Path, files: dict[str, str], *options: str, ini: str = "") -> str:
    """Run a suite of these files by pytest in a process of its own; returns what it printed."""
    (directory / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    for name, text in files.items():
        (directory / name).write_text(text)
    unwanted = ("PYTEST_", "TB_ADDRESS", "COV_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    done = subprocess.run(
        [*QUIETLY, *options, str(directory)],
        cwd=directory,
        env=environment
        | {"PYTHONPATH": str(REPOSITORY), "ADDRESSES": str(directory / "addresses")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.long)])
def test_each_test_finds_an_empty_ledger_behind_a_shared_client(
    processes: int, tmp_path: Path
) -> None:
    files = {"conftest.py": CONFTEST, "test_empty.py": EMPTY}
    said = _run(tmp_path, files, f"-n{processes}", ini="tigerbeetle_emulator_export = true")
    assert "10 passed" in said
    addresses = (tmp_path / "addresses").read_text().split()
    assert len(addresses) == 10
    assert len(set(addresses)) == max(1, processes)  # each process its own


def test_each_scope_has_an_emulator_of_its_own(tmp_path: Path) -> None:
    files = {"test_scopes.py": SCOPES, "test_other.py": OTHER_MODULE, "test_plain.py": NOT_EXPORTED}
    assert "4 passed" in _run(tmp_path, files)


def test_pytest_lists_the_fixtures_and_the_setting(tmp_path: Path) -> None:
    listed = _run(tmp_path, {"test_plain.py": NOT_EXPORTED}, "--fixtures")
    for name in ("emulator", "emulator_module", "emulator_session", "empty_ledger"):
        assert f"tigerbeetle_{name}" in listed
    assert "tigerbeetle_emulator_export" in _run(tmp_path, {}, "--help")
