"""A command that is printed can be pasted: where it acts on a cluster, it names the inventory."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.refusal import Refusal

ROOMS = ("cluster", "tasks", "loadtests", "monitoring")
CODE = [file for room in ROOMS for file in sorted((REPOSITORY / room).rglob("*.py"))]
CODE += [*(REPOSITORY / "tests" / "infra").rglob("*.py")]  # `make verify`
DATA = [
    *sorted((REPOSITORY / "cluster").rglob("*.toml")),
    *sorted((REPOSITORY / "files" / "monitoring" / "rules").glob("*")),
    *sorted((REPOSITORY / "loadtests").rglob("*.j2")),
]
#: Targets that act on the cluster of INVENTORY=; without it, on the emulator's (doctor: in Docker).
TARGETS = (
    "up|down|restart|upgrade|status|logs|verify|doctor|backup|backup-verify|restore|recover|watch"
    "|monitor-up|monitor-down|monitor-status|planned-stop"
    "|load|load-ui|audit|report|capacity|workload|load-compare|load-history"
)
#: A command, up to where it ends in a sentence.
COMMAND = re.compile(rf"\bmake ({TARGETS})(?![\w-])([^;`,)<\n]*)")
#: What gives it its inventory: ``deployment.named`` and its like, or a file of its own.
NAMED = re.compile(r"\{[^{}]*\bnamed\b[^{}]*\}|INVENTORY=")


def printed(tree: ast.AST) -> Iterator[str]:
    """The texts of a module but its docstrings; what is filled in stands in braces."""
    nodes = list(ast.walk(tree))
    silent = {
        id(part)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    silent |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if id(node) in silent:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(_filled, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _filled(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        return f"{{{ast.unparse(part.value)}}}"
    return str(part.value) if isinstance(part, ast.Constant) else ""


def unnamed(text: str) -> list[str]:
    """The commands in a text that would act on the default inventory's cluster."""
    found = COMMAND.finditer(text)
    return [each[0].strip() for each in found if not NAMED.search(each[2])]


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_command_that_is_printed_names_its_inventory(file: Path) -> None:
    texts = printed(ast.parse(file.read_text()))
    assert [command for text in texts for command in unnamed(text)] == []


@pytest.mark.parametrize("file", DATA, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_so_does_every_command_in_what_is_printed_from_a_file(file: Path) -> None:
    lines = [line.strip() for line in file.read_text().splitlines()]
    said = [line for line in lines if not line.startswith("#")]
    assert [command for line in said for command in unnamed(line)] == []


@pytest.mark.parametrize(
    "source",
    [
        'print("Fix: make up")',
        'raise Refusal(f"{x}: found none. " f"Fix: make recover REPLICA={index}; then again")',
        'fix = f"look with `make status`, then make logs {deployment.named}"',
        'f(f"prove it: make backup-verify FROM={quote(taken)}")',
        'f("a docstring of nobody: make doctor")',
    ],
)
def test_a_command_without_its_inventory_is_found(source: str) -> None:
    assert len([c for text in printed(ast.parse(source)) for c in unnamed(text)]) == 1


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """``make up`` calls this."""',
        'print(f"Fix: make up {self.deployment.named}")',
        'print(f"make recover {named} REPLICA={index}, or make restore {named} FROM=")',
        'print("Fix: make up INVENTORY=inventories/local.py")',
        'print("Fix: make download; make pin; make compose-tb-up; make room there")',
    ],
)
def test_others_are_not(source: str) -> None:
    assert [c for text in printed(ast.parse(source)) for c in unnamed(text)] == []


@pytest.mark.parametrize(
    ("fix", "ends"),
    [
        ("make up INVENTORY=eu.py", "Fix: make up INVENTORY=eu.py"),
        ("go back: make restore INVENTORY=eu.py FROM=b", "FROM=b"),
        ("make compose-tb-up", "Fix: make compose-tb-up"),
        ("name another one", "Fix: name another one."),
        ("look at it, or make room there", "make room there."),
        ("make up INVENTORY=eu.py, then repeat", "then repeat."),
    ],
)
def test_a_command_at_the_end_of_a_refusal_has_no_full_stop_behind_it(fix: str, ends: str) -> None:
    """Pasted with it, the inventory would be another file."""
    assert str(Refusal("it", expected="this", found="that", fix=fix)).endswith(ends)
