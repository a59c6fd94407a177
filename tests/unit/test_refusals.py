"""A refusal that says what was expected says what to do, too: who reads it has nobody to ask."""

from __future__ import annotations

import ast

import pytest

from cluster import REPOSITORY

KINDS = {
    *("Refusal", "Failed", "Damaged", "Unhealthy", "Expired", "AsTold"),
    *("SshError", "RefusedBySshError", "DeployError"),
}
PRODUCT = [
    file
    for folder in ("cluster", "loadtests", "monitoring", "tasks")
    for file in sorted((REPOSITORY / folder).rglob("*.py"))
]


def without_fix(source: str) -> list[int]:
    """The lines of refusals whose text says ``expected``, and not ``Fix:``."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if _kind(call) in KINDS and not _says_what_to_do(call)]


def _kind(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _says_what_to_do(call: ast.Call) -> bool:
    named = {keyword.arg for keyword in call.keywords}
    text = " ".join(
        node.value
        for argument in call.args
        for node in ast.walk(argument)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    is_expecting = "expected" in named or "expected " in text
    return not is_expecting or "fix" in named or "Fix: " in text


def test_every_refusal_says_what_to_do() -> None:
    found = {str(file): lines for file in PRODUCT if (lines := without_fix(file.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("raise Refusal('x: expected a run, found none')", True),
        ("raise ssh.SshError(f'{x}: expected a tunnel, found: {y}')", True),
        ("raise Refusal('x', expected='a run', found='none')", True),
        ("raise Refusal('x', expected='a run', found='none', fix='make load')", False),
        ("raise Refusal('x: expected a run, found none. Fix: make load')", False),
        ("raise Refusal(str(error))", False),
        ("raise ValueError('expected 1, found 2')", False),
    ],
)
def test_a_refusal_without_a_fix_is_found(line: str, is_found: bool) -> None:
    assert without_fix(line) == ([1] if is_found else [])
