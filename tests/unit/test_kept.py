"""Files that are written whole, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.config import kept


def test_a_file_that_several_write_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "program"
    contents = [letter * 100_000 for letter in (b"a", b"b", b"c")] * 30
    with ThreadPoolExecutor(3) as together:
        written = list(together.map(lambda content: kept.write(path, content, 0o755), contents))
    assert set(written) == {path}
    assert path.read_bytes() in contents
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.mkdir()
    with pytest.raises(OSError, match="program"):
        kept.write(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
