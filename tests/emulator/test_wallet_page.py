"""The page for wallet developers: each example runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

import tigerbeetle_emulator
from tests.emulator.test_pytest_plugin import QUIETLY

PAGE = (Path(__file__).parents[2] / "docs" / "wallet-tests.md").read_text()
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = dict(_SECTION.findall(PAGE))

USES_CONFTEST = """
import pytest
import tigerbeetle as tb

@pytest.mark.parametrize("number", range(3))
def test_the_documented_client_finds_an_empty_ledger(client, number):
    assert client.lookup_accounts([1]) == []
    client.create_accounts([tb.Account(id=1, ledger=840, code=1)])
"""


def _examples(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def _run(command: list[str], directory: Path) -> str:
    unwanted = ("PYTEST_", "TB_ADDRESS", "COV_")
    done = subprocess.run(
        command,
        cwd=directory,
        env={k: v for k, v in os.environ.items() if not k.startswith(unwanted)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_pytest_examples_run(tmp_path: Path) -> None:
    test, conftest = _examples("pytest", "python")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_wallet.py").write_text(test)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_shared.py").write_text(USES_CONFTEST)
    assert "4 passed" in _run([*QUIETLY], tmp_path)


@pytest.mark.parametrize("section", ["Time, and a state to come back to", "asyncio"])
def test_the_scripts_run(section: str, tmp_path: Path) -> None:
    (script,) = _examples(section, "python")
    _run([sys.executable, "-c", script], tmp_path)


def test_the_unittest_example_runs(tmp_path: Path) -> None:
    (example,) = _examples("unittest", "python")
    (tmp_path / "test_wallet.py").write_text(example)
    assert "Ran 2 tests" in _run([sys.executable, "-m", "unittest"], tmp_path)


def test_the_workflow_installs_what_the_page_says_and_runs_the_tests() -> None:
    (workflow,) = _examples("GitHub Actions", "yaml")
    steps = yaml.safe_load(workflow)["jobs"]["wallet"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] in PAGE.partition("## pytest")[0]
    assert commands[1:] == ["pytest"]


def _fixtures() -> set[str]:
    from tigerbeetle_emulator import pytest_plugin

    return {name for name in vars(pytest_plugin) if name.startswith("tigerbeetle_")}


def _arguments() -> set[str]:
    return set(tigerbeetle_emulator.run.__wrapped__.__kwdefaults__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("named", "page"), [(_fixtures, "wallet-tests.md"), (_arguments, "emulator.md")]
)
def test_every_fixture_and_argument_is_documented(named: Callable[[], set[str]], page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    found = set(re.findall(r"^\| `(\w+)[`=]", text, re.MULTILINE))
    assert named() - found == set()
