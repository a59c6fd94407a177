"""What of a run was acknowledged before an instant for certain: by the cluster's own clock. Pure.

A backup is a copy of one instant. What a client had been told before it must be in the copy; what
was asked for after it cannot be; what was under way may be there or not. The record of a run says
when the cluster has *executed* a request, not when the answer arrived, which is later. But a client
asks for the next thing only when it has the answer to the last one. So:

    a request was answered before the instant for certain, where its client's next request, or a
    later one, was executed before it.

Of each client, the last request that was executed before the instant stays undecided: it may have
been under way. No clock of a client is read. The instant is by the clock of whoever took the copy,
which on servers may differ from theirs; so a margin is subtracted from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np

from cluster.checks.server import CLOCK_SPREAD_MAX_S
from loadtests.client.records import EXISTS, UNANSWERED, Array, Rows, pieces
from loadtests.proof.record import Mask
from loadtests.run.history import Operation

_PIECE_LINES = 1 << 16


def limit_ns(taken_at: datetime, *, is_one_clock: bool) -> int:
    """The instant of a copy on the cluster's clock, or earlier: ns since 1970.

    With one clock for all, as on one machine, it is the same; servers' clocks may be apart by what
    a deploy lets them.
    """
    margin = timedelta(seconds=0 if is_one_clock else CLOCK_SPREAD_MAX_S)
    return int((taken_at - margin).timestamp() * 1_000_000) * 1000


def count_before(lines: Rows, limit_ns: int) -> int:
    """How many of *one* client's lines, from the first on, were answered before it for certain.

    They are in the order in which their answers came, and so the requests; where one request ends
    and the next begins, their timestamps have a gap. ``exists`` carries an older one, so it is no
    evidence and no boundary.
    """
    last, newest = -1, 0
    for start, piece in pieces(lines, _PIECE_LINES):
        stamps = piece["result"]["timestamp"]
        executed = np.flatnonzero(~_is_vague(piece) & (stamps > 0) & (stamps <= limit_ns))
        if len(executed):
            last, newest = start + int(executed[-1]), int(stamps[executed[-1]])
    stop = max(last, 0)
    while stop:  # back to where its request begins
        start = max(0, stop - _PIECE_LINES)
        piece = lines[start:stop]
        expected = newest - (last - np.arange(start, stop))
        is_same = piece["result"]["timestamp"].astype(np.int64) == expected
        others = np.flatnonzero(~(is_same | _is_vague(piece)))
        if len(others):
            return start + int(others[-1]) + 1
        stop = start
    return 0


def _is_vague(lines: Array) -> Mask:
    status = lines["result"]["status"]
    is_vague: Mask = (status == EXISTS) | (status == UNANSWERED)
    return is_vague


def numbers_before(operations: Iterable[Operation], limit_ns: int) -> frozenset[int]:
    """The numbers of those operations of a history that were answered before it for certain."""
    known, last = list(operations), dict[int, int]()
    for one in known:
        if 0 < one.timestamp <= limit_ns:
            last[one.worker] = max(one.number, last.get(one.worker, 0))
    return frozenset(one.number for one in known if one.number < last.get(one.worker, 0))
