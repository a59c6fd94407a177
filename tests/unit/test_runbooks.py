"""The runbooks: every page is listed, and says which test tries it. See ``test_documents``, too."""

from __future__ import annotations

import re

import pytest

from cluster import REPOSITORY

INDEX = (REPOSITORY / "docs" / "runbooks" / "README.md").read_text()
ROWS = re.findall(r"^\| .* \| \[(\S+)\]\((\S+)\) \| (.*) \|$", INDEX, re.MULTILINE)


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
