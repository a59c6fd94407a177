"""Work in steps: a query of a large ledger gives way to other requests between two of them.

A step is a bounded amount of work, counted in transfers, for this is the pure core: it knows no
clock. What takes more than one step is a generator that yields between them and returns its result.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

SCANNED = 8192  # transfers that a step looks at
WALKED = 512  # transfers that a step indexes, computes balances of, or packs


def finish(steps: Steps[T]) -> T:
    """Take all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def parts(count: int, size: int) -> Iterator[slice]:
    """The whole of `count` things in slices of at most `size`, in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
