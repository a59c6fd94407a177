"""What a run knows of its transfers: each as it was sent, and what was answered. Pure.

Lines are packed RECORD records, one for each transfer of each request, whatever kind of run has
written them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loadtests.client import records
from loadtests.client.columns import Lows
from loadtests.client.records import RECORD, UNANSWERED, Array
from loadtests.run.history import CREATED, EXISTS, Operation
from loadtests.wallet.packing import pack_transfers

Mask = npt.NDArray[np.bool_]

#: Any status that is neither created nor exists: the proof only asks whether it was refused.
_REFUSED = 2**32 - 2


class Record:
    """A run's record, sorted out: what was acknowledged, what is unknown, what was refused.

    For a copy of the ledger, ``before`` says which lines were answered before it was taken for
    certain. The others' outcome was unknown at that instant: the copy may hold them, or not.
    """

    def __init__(self, lines: Array, tag: int, before: Mask | None = None) -> None:
        status = lines["result"]["status"]
        self.lines, self.tag = lines, tag
        self.before = np.ones(len(lines), bool) if before is None else before
        self.lows: Lows = np.ascontiguousarray(lines["sent"]["id"][:, 0])
        acknowledged = np.flatnonzero((status == records.CREATED) | (status == records.EXISTS))
        stamps = lines["result"]["timestamp"][acknowledged]
        order = np.argsort(stamps, kind="stable")
        # A retry that found its transfer committed has the same timestamp: keep one of the lines.
        self.stamps, first = np.unique(stamps[order], return_index=True)
        self.rows = acknowledged[order][first]
        self.unanswered: Lows = np.unique(self.lows[(status == UNANSWERED) | ~self.before])
        self.created_lows: Lows = np.sort(self.lows[status == records.CREATED])
        shared = stamps[order]
        same = np.flatnonzero(shared[1:] == shared[:-1])
        sorted_lows = self.lows[acknowledged[order]]
        self.one_stamp_two_ids: Lows = sorted_lows[same][sorted_lows[same + 1] != sorted_lows[same]]


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
