"""The runbooks: every page is listed, its links lead somewhere, and what it says to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.config import ENV_FILE

PAGES = sorted((REPOSITORY / "docs" / "runbooks").glob("*.md"))
INDEX = (REPOSITORY / "docs" / "runbooks" / "README.md").read_text()
MAKEFILE = (REPOSITORY / "Makefile").read_text()
#: What make passes on without naming it.
FROM_THE_ENVIRONMENT = {"CANARY", "CONFIRM", "BOOTSTRAP"}
ROWS = re.findall(r"^\| .* \| \[(\S+)\]\((\S+)\) \| (.*) \|$", INDEX, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)[)#]", page.read_text())
    assert [link for link in links if not (page.parent / link).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_make_target_and_variable_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"(?:^\s*|`)make ([a-z][a-z-]+)", text, re.MULTILINE))
    assert [t for t in sorted(named) if not re.search(rf"^{t}:", MAKEFILE, re.MULTILINE)] == []
    variables = set(re.findall(r"LU_CFG_TIGERBEETLE_[A-Z_0-9]*[A-Z]", text))
    assert [v for v in sorted(variables) if f"{v}=" not in ENV_FILE.read_text()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_passed_to_make_is_what_the_makefile_reads(page: Path) -> None:
    for command in re.findall(r"^\s*make [a-z-]+(.*)$", page.read_text(), re.MULTILINE):
        for variable in re.findall(r" ([A-Z_]+)=", command.partition("#")[0]):
            read = f"$({variable})" in MAKEFILE or variable in FROM_THE_ENVIRONMENT
            assert read, f"{variable} in {command}"


def test_every_page_of_the_index_is_there_and_is_what_its_link_says() -> None:
    assert len(ROWS) >= 5
    assert all(shown == link for shown, link, _ in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_page_names_the_test_that_tries_it_or_says_that_none_does(
    row: tuple[str, str, str],
) -> None:
    page, _, tried = row
    if tests := re.findall(r"`(tests/\S+)`", tried):
        assert all((REPOSITORY / test).is_file() for test in tests)
    else:
        assert "no test" in tried
        assert "no test" in (REPOSITORY / "docs" / "runbooks" / page).read_text().lower()
