"""Sorting and merging beyond memory: sorted runs in a file without a name, merged block by block.

Rows are u64 matrices of shape (n, width). They are in order by their first column, the *key*, and
among equal keys by the second one. A block that is handed out never ends within a key, so whatever
belongs together is seen together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

#: What one sorter holds in memory before it writes, and what all blocks of one merge take.
RUN_BYTES = 8 << 20
MERGE_BYTES = 8 << 20
_WORD = 8


def in_order(rows: Words) -> Words:
    """The rows by their first column, then by their second."""
    if rows.shape[1] == 1:
        return np.sort(rows, axis=0)
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


class Sorter:
    """Rows are added in any order, as many as fit on the disk, and come back sorted.

    ``combine``, where given, makes fewer rows of sorted ones, such as sums by key. The file is in
    ``folder`` and has no name: nothing of it is left, whatever ends the program.
    """

    def __init__(
        self,
        width: int,
        folder: Path | None = None,
        *,
        combine: Callable[[Words], Words] = lambda rows: rows,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self._width, self._folder, self._combine = width, folder, combine
        self._rows_max = max(1, run_bytes // (width * _WORD))
        self._waiting: list[Words] = []
        self._count = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []  # first row and number of rows

    def add(self, rows: Words) -> None:
        """Take these; they are copied. Raises OSError when the disk is full."""
        for start in range(0, len(rows), self._rows_max):
            part = rows[start : start + self._rows_max]
            self._waiting.append(part.copy())
            self._count += len(part)
            if self._count >= self._rows_max:
                self._spill()

    def sorted(self) -> Iterator[Words]:
        """All rows in order, in blocks. May be asked for again."""
        streams: list[Iterable[Words]] = [[self._gathered()]] if self._count else []
        if self._file:
            self._file.flush()
            size = max(1, MERGE_BYTES // (len(self._runs) * self._width * _WORD))
            streams += [self._read(first, count, size) for first, count in self._runs]
        yield from map(self._combine, merge(streams))

    def _gathered(self) -> Words:
        """What waits in memory, sorted and combined, as one matrix."""
        rows = self._combine(in_order(np.concatenate(self._waiting)))
        self._waiting, self._count = [rows], len(rows)
        return rows

    def _spill(self) -> None:
        rows = self._gathered()
        if len(rows) > self._rows_max * 3 // 4:  # else combining has made room
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long
            first = sum(self._runs[-1]) if self._runs else 0  # where the latest one ends
            self._file.write(np.ascontiguousarray(rows).data)
            self._runs.append((first, len(rows)))
            self._waiting, self._count = [], 0

    def _read(self, first: int, count: int, size: int) -> Iterator[Words]:
        if self._file is None:
            raise AssertionError("there is no run without a file")
        row_bytes = self._width * _WORD
        for start in range(first, first + count, size):
            rows = min(size, first + count - start)
            data = os.pread(self._file.fileno(), rows * row_bytes, start * row_bytes)
            yield np.frombuffer(data, np.uint64).reshape(-1, self._width)


class _Head:
    """What of a stream has been read, and not been handed out."""

    def __init__(self, blocks: Iterable[Words]) -> None:
        self._blocks = iter(blocks)
        self.rows: Words | None = None
        self.is_over = False
        self.more()

    @property
    def last(self) -> np.uint64 | None:
        """The newest key read; None when nothing waits."""
        return None if self.rows is None or not len(self.rows) else self.rows[-1, 0]

    def more(self) -> None:
        """Read another block, if there is one."""
        block = next((block for block in self._blocks if len(block)), None)
        if block is None:
            self.is_over = True
        elif self.rows is None or not len(self.rows):
            self.rows = block
        else:
            self.rows = np.concatenate([self.rows, block])

    def below(self, bound: np.uint64 | None) -> Words | None:
        """Hand out what has a smaller key; all of it without a bound."""
        if self.rows is None:
            return None
        at = len(self.rows) if bound is None else int(np.searchsorted(self.rows[:, 0], bound))
        taken, self.rows = self.rows[:at], self.rows[at:]
        return taken


def merge(streams: Sequence[Iterable[Words]]) -> Iterator[Words]:
    """All rows of sorted streams, in order, in blocks; no key is in two of them."""
    heads = [_Head(stream) for stream in streams]
    while True:
        lasts = [head.last for head in heads if not head.is_over]
        bound = min((last for last in lasts if last is not None), default=None)
        parts = [rows for head in heads if (rows := head.below(bound)) is not None and len(rows)]
        if len(parts) == 1:
            yield parts[0]
        elif parts:
            yield in_order(np.concatenate(parts))
        elif bound is None:
            return
        for head in heads:
            if not head.is_over and (head.last is None or head.last == bound):
                head.more()


class Cursor:
    """A place in a sorted stream, which only moves forward."""

    def __init__(self, blocks: Iterable[Words]) -> None:
        self._blocks = iter(blocks)
        self._rows: Words | None = None

    def until(self, bound: np.uint64 | None) -> Iterator[Words]:
        """The rows up to this key, in blocks; without a bound all that are left."""
        while True:
            if self._rows is None or not len(self._rows):
                self._rows = next(self._blocks, None)
                if self._rows is None:
                    return
            rows, at = self._rows, len(self._rows)
            if bound is not None:
                at = int(np.searchsorted(rows[:, 0], bound, side="right"))
            taken, self._rows = rows[:at], rows[at:]
            if at:
                yield taken
            if len(self._rows):
                return
