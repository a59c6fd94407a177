"""What a run knows of its transfers: each as it was sent, and what was answered.

Lines are packed RECORD records, one for each transfer of each request, whatever kind of run has
written them. They are read piece by piece, and come back in the order that a proof needs. A worker
writes them nearly in both orders, of timestamps and of ids: so only the *strays*, which are
smaller than an earlier one, are sorted; all others are read from where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtests.client import records
from loadtests.client.columns import words
from loadtests.client.external import Sorter, Words, merge
from loadtests.client.records import RECORD, UNANSWERED, Array, Rows, pieces
from loadtests.run.history import CREATED, EXISTS, Operation
from loadtests.wallet.packing import pack_transfers

Mask = npt.NDArray[np.bool_]

#: Any status that is neither created nor exists: the proof only asks whether it was refused.
_REFUSED = 2**32 - 2
#: Lines of all parts that are in memory at once.
_PIECE_LINES = 1 << 16

#: The columns of a sorted line: its key, its number in the whole record, whether it was answered
#: before a copy of the ledger was taken; then the transfer as sent, and what was answered.
KEY, NUMBER, BEFORE, SENT = 0, 1, 2, 3
STAMP, STATUS = SENT + 16, SENT + 17
_WIDTH = SENT + RECORD.itemsize // 8
_LOW_HALF = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Part:
    """One worker's lines.

    For a copy of the ledger, ``before`` says which of them were answered before it was taken for
    certain: a mask, or how many of the first. The others' outcome was unknown at that instant: the
    copy may hold them, or not. Without, all were.
    """

    lines: Rows
    before: Mask | int | None = None

    @property
    def before_count(self) -> int:
        """How many were answered before the copy."""
        if self.before is None:
            return len(self.lines)
        return self.before if isinstance(self.before, int) else int(np.count_nonzero(self.before))

    def is_before(self, start: int, stop: int) -> Mask:
        """Of the lines from ``start`` to ``stop``."""
        if self.before is None:
            return np.ones(stop - start, bool)
        if isinstance(self.before, int):
            return np.arange(start, stop) < self.before
        return self.before[start:stop]


class Record:
    """A run's record. What does not fit into memory is sorted in ``folder``."""

    def __init__(self, parts: Sequence[Part], tag: int, folder: Path | None = None) -> None:
        self.parts, self.tag, self.folder = parts, tag, folder

    def __len__(self) -> int:
        return sum(len(part.lines) for part in self.parts)

    def by_stamp(self) -> Iterator[Words]:
        """The acknowledged lines by their timestamps, in blocks that end with one."""
        return self._sorted(_acknowledged)

    def by_id(self) -> Iterator[Words]:
        """All lines by the low halves of their ids, in blocks that end with one."""
        return self._sorted(_of_ids)

    def _sorted(self, chosen: _Choice) -> Iterator[Words]:
        strays = Sorter(_WIDTH, self.folder)
        first, places = 0, []
        for part in self.parts:
            places.append((part, first))
            first += len(part.lines)
            for block in self._lines(*places[-1], chosen, is_stray=True):
                strays.add(block)
        rising = [self._lines(*place, chosen, is_stray=False) for place in places]
        return merge([*rising, strays.sorted()])

    def _lines(self, part: Part, first: int, chosen: _Choice, *, is_stray: bool) -> Iterator[Words]:
        """A part's chosen lines that are larger than all before them, or those that are not."""
        size = max(1, _PIECE_LINES // len(self.parts))
        highest: np.uint64 | None = None
        for start, piece in pieces(part.lines, size):
            lines = words(piece)
            at, keys = chosen(lines)
            if not len(at):
                continue
            reached = np.maximum.accumulate(keys)
            rises = np.append(highest is None or keys[0] > highest, keys[1:] > reached[:-1])
            if highest is not None:
                rises &= keys > highest
            highest = reached[-1] if highest is None else max(highest, reached[-1])
            taken = at[rises != is_stray]
            rows = np.empty((len(taken), _WIDTH), np.uint64)
            rows[:, KEY] = keys[rises != is_stray]
            rows[:, NUMBER] = taken + (first + start)
            rows[:, BEFORE] = part.is_before(start, start + len(lines))[taken]
            rows[:, SENT:] = lines[taken]
            if len(rows):
                yield rows


#: Which rows of some lines are wanted, and the key of each.
_Choice = Callable[[Words], tuple[npt.NDArray[np.intp], Words]]


def status_of(rows: Words) -> Words:
    """The answers of sorted lines."""
    return rows[:, STATUS] & _LOW_HALF


def _acknowledged(lines: Words) -> tuple[npt.NDArray[np.intp], Words]:
    status = lines[:, STATUS - SENT] & _LOW_HALF
    at = np.flatnonzero((status == records.CREATED) | (status == records.EXISTS))
    return at, lines[at, STAMP - SENT]


def _of_ids(lines: Words) -> tuple[npt.NDArray[np.intp], Words]:
    return np.arange(len(lines)), lines[:, 0]


def of_operations(
    operations: Sequence[Operation], before: frozenset[int] = frozenset()
) -> tuple[Array, Mask]:
    """A history's lines, and which are of the operations with the numbers in ``before``.

    The acknowledged ones come first: the proof takes an id's fields from its first line, and a
    changed retry must not come before it.
    """
    rank = {records.CREATED: 0, records.EXISTS: 1, UNANSWERED: 2, _REFUSED: 3}
    codes = {CREATED: records.CREATED, EXISTS: records.EXISTS}
    rows = []
    for operation in operations:
        if operation.kind != "create_transfers":
            continue
        for index, sent in enumerate(operation.transfers):
            status, stamp = UNANSWERED, 0
            if operation.outcome != "unknown":
                status = codes.get(operation.statuses[index], _REFUSED)
                stamp = operation.timestamps[index] if status != _REFUSED else 0
            rows.append((status, stamp, sent, operation.number in before))
    rows.sort(key=lambda row: rank[row[0]])
    lines = np.zeros(len(rows), RECORD)
    lines["sent"] = pack_transfers(row[2] for row in rows)
    lines["result"]["status"] = [row[0] for row in rows]
    lines["result"]["timestamp"] = [row[1] for row in rows]
    return lines, np.array([row[3] for row in rows], bool)


def tag_of(operations: Sequence[Operation]) -> int:
    """The run's tag: user_data_64 of all its transfers, and the high half of their ids."""
    return next((one.user_data_64 for op in operations for one in op.transfers), 0)
