"""Every link, path, make target, variable and module that a page for people names is there."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.checks import rules
from cluster.config import ENV_FILE
from cluster.runtimes import diagnoses

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
#: What make passes on without naming it.
FROM_THE_ENVIRONMENT = {"CANARY", "CONFIRM", "BOOTSTRAP"}
#: Not the emulator: a pytest fixture has its name.
PACKAGES = "cluster|loadtests|monitoring|tasks|benchmarks|tests"
#: Paths that a page may name though no file has them: what commands write, and others' images.
ELSEWHERE = re.compile(
    r"(runs|backups)/|(env|inventories)/production|(prom|grafana|ncabatoff)/[a-z-]+$"
    r"|tigerbeetle/Dockerfile$"  # the first document's
)
PATH = re.compile(r"[\w.-]+(/[\w.-]+)+/?")
TEST_FILE = re.compile(r"test_\w+\.py")
TEST_FILES = {file.name for file in (REPOSITORY / "tests").rglob("test_*.py")}
DOTTED = re.compile(rf"(?<![\w./-])((?:{PACKAGES})(?:\.\w+)+)(?![\w/])")
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)


def code(text: str) -> Iterator[str]:
    """What a page shows as code: the lines of its blocks, then what stands in backticks."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        if language != "python":
            yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", text)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def unknown_names(text: str, page: Path) -> list[str]:
    """What a page says of this repository and is not so."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s:]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"link {link}")
    for line in code(text):
        targets = re.findall(r"\bmake ([a-z][\w-]*)", line)
        wrong += [f"make {target}" for target in targets if target not in TARGETS]
        programs = re.findall(r"python3? -m ([a-z_][\w.]*)", line)
        wrong += [f"python -m {name}" for name in programs if not _is_program(name)]
        wrong += [f"name {name}" for name in DOTTED.findall(line) if not _is_defined(name)]
        if PATH.fullmatch(line) and not ELSEWHERE.match(line):
            here = (REPOSITORY / line).exists() or (page.parent / line).exists()
            wrong += [] if here else [f"path {line}"]
        if TEST_FILE.fullmatch(line) and line not in TEST_FILES:
            wrong.append(f"path {line}")
    return wrong


def _is_program(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
        if spec and spec.submodule_search_locations:  # a package is run by its __main__
            spec = importlib.util.find_spec(f"{module}.__main__")
    except ModuleNotFoundError:
        return False
    return spec is not None


def _is_defined(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@each_page
def test_what_a_page_names_exists(page: Path) -> None:
    assert unknown_names(page.read_text(), page) == []


@each_page
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    known = ENV_FILE.read_text()
    named = set(re.findall(r"LU_CFG_TIGERBEETLE_[A-Z_0-9]*[A-Z0-9]", page.read_text()))
    assert [v for v in sorted(named) if f"{v.replace('_X_', '_0_')}=" not in known] == []


@each_page
def test_what_is_passed_to_make_is_what_the_makefile_reads(page: Path) -> None:
    for line in code(page.read_text()):
        for command in re.findall(r"\bmake [a-z][\w-]*([^#&|;]*)", line):
            for variable in re.findall(r" ([A-Z_0-9]+)=", command):
                is_read = re.search(rf"[(,]{variable}\)", MAKEFILE)
                read = is_read or variable in FROM_THE_ENVIRONMENT
                assert read, f"{variable} in {line}"


@pytest.mark.parametrize(
    "key",
    [*rules.OF_ONE_MACHINE, *rules.OF_ALL_TOGETHER, *(known.key for known in diagnoses.KNOWN)],
)
def test_every_trouble_that_the_doctor_knows_is_explained(key: str) -> None:
    assert f"`{key}`" in (REPOSITORY / "docs/docker.md").read_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`cluster/config.py`", "path cluster/config.py"),
        ("`test_wonders.py`", "path test_wonders.py"),
        ("see [there](docs/nowhere.md)", "link docs/nowhere.md"),
        ("see [there](docs/docker.md#nowhere)", "link docs/docker.md#nowhere"),
        ("`make wonders`", "make wonders"),
        ("```\nmake wonders   # now\n```", "make wonders"),
        ("`python -m cluster.nothing`", "python -m cluster.nothing"),
        ("`tasks.replica.juggle`", "name tasks.replica.juggle"),
    ],
)
def test_a_name_that_is_not_there_is_found(text: str, found: str) -> None:
    assert found in unknown_names(text, REPOSITORY / "README.md")
