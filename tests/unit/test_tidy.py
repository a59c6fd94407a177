"""The repository agrees with itself: environment, Makefile, README, dependencies."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from cluster import REPOSITORY, cli, config

MAKEFILE = (REPOSITORY / "Makefile").read_text()
README = (REPOSITORY / "README.md").read_text()
CONFIGURATION = (REPOSITORY / "docs/configuration.md").read_text()
PROJECT = (REPOSITORY / "pyproject.toml").read_text()
TARGETS = re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE)
SIZE_MAX_BYTES = 1024**2
BOUNDED = re.compile(r"subprocess\.(run|call|check_call|check_output)")
CONTEXT = click.Context(cli.commands)


def tracked() -> list[Path]:
    names = subprocess.check_output(["git", "ls-files"], cwd=REPOSITORY, text=True)
    return [REPOSITORY / name for name in names.splitlines() if (REPOSITORY / name).is_file()]


@pytest.mark.parametrize("variable", sorted(config.read(config.ENV_FILE, {})))
def test_every_variable_is_explained(variable: str) -> None:
    general = re.sub(r"_\d+_", "_X_", variable)
    assert f"`{general}`" in CONFIGURATION


def test_make_alone_lists_every_target_with_a_description() -> None:
    printed = subprocess.check_output(["make"], cwd=REPOSITORY, text=True)
    listed = re.findall(r"^  ([a-z][a-z0-9-]*) +\S", printed, re.MULTILINE)
    assert sorted(listed) == sorted(set(TARGETS))


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_every_target_is_declared_phony(target: str) -> None:
    assert re.search(rf"^\.PHONY: {target}$", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"PYTHON\) -m ([a-z_.]+)", MAKEFILE))))
def test_every_program_that_make_runs_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


NAMED = re.compile(r'-m cluster ([a-z][a-z-]*)|"-m", "cluster", "([a-z-]+)"')


def test_every_command_that_is_named_anywhere_exists() -> None:
    written = [
        file for file in tracked() if file.suffix in (".py", ".md") or file.name == "Makefile"
    ]
    named = {a or b for file in written for a, b in NAMED.findall(file.read_text())}
    assert "status" in named
    assert named - set(cli.commands.list_commands(CONTEXT)) == set()


@pytest.mark.parametrize("name", cli.commands.list_commands(CONTEXT))
def test_every_command_is_where_the_table_says_and_explains_itself(name: str) -> None:
    command = cli.commands.get_command(CONTEXT, name)
    assert command is not None
    assert command.help


def test_the_readme_names_every_inventory() -> None:
    for file in (REPOSITORY / "inventories").glob("*.py"):
        assert f"inventories/{file.name}" in README


def test_every_dependency_says_why_once() -> None:
    groups = tomllib.loads(PROJECT)["dependency-groups"].values()
    names = {re.split(r"[^a-zA-Z0-9-]", entry)[0] for group in groups for entry in group}
    explained = {
        m[1] for m in re.finditer(r'^  "([a-zA-Z0-9-]+)[^"]*",? *#', PROJECT, re.MULTILINE)
    }
    obvious = {"pytest", "ruff", "mypy", "yamllint"}
    assert sorted(names - explained - obvious) == []


def test_every_package_of_the_lock_has_hashes() -> None:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    for package in lock["package"]:
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        if "registry" in package["source"]:
            assert files
            assert all(file["hash"].startswith("sha256:") for file in files)


def test_nothing_large_and_no_private_file_is_tracked() -> None:
    large = [str(f) for f in tracked() if f.stat().st_size > SIZE_MAX_BYTES]
    assert large == []
    private = [str(f) for f in tracked() if f.name.endswith((".tigerbeetle", ".local.env"))]
    private += [str(f) for f in tracked() if f.match("env/production*.env")]
    assert private == []


def test_the_env_file_keeps_to_what_compose_and_python_read_alike() -> None:
    for line in config.ENV_FILE.read_text().splitlines():
        assert line == "" or line.startswith("#") or re.fullmatch(r"[A-Z0-9_]+=[^\s'\"$#]*", line)


def unbounded(source: str) -> list[int]:
    """The lines that run a program without a bound; ``timeout=None`` must say why."""
    found, lines = [], source.splitlines()
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not BOUNDED.fullmatch(ast.unparse(call.func)):
            continue
        given = [k.value for k in call.keywords if k.arg == "timeout"]
        is_none = given and isinstance(given[0], ast.Constant) and given[0].value is None
        if not given or (is_none and "# endless" not in lines[given[0].lineno - 1]):
            found.append(call.lineno)
    return found


def test_every_program_that_is_run_has_a_bound() -> None:
    ours = [
        f for f in tracked() if f.suffix == ".py" and not f.is_relative_to(REPOSITORY / "tests")
    ]
    found = {str(f): lines for f in ours if (lines := unbounded(f.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("subprocess.run(['ls'])", True),
        ("subprocess.check_output(['ls'], text=True)", True),
        ("subprocess.run(['ls'], timeout=None)", True),
        ("subprocess.run(['ls'], timeout=None)  # endless", False),
        ("subprocess.run(['ls'], timeout=5)", False),
        ("subprocess.Popen(['ls'])", False),
    ],
)
def test_a_program_without_a_bound_is_found(line: str, is_found: bool) -> None:
    assert unbounded(line) == ([1] if is_found else [])
