"""Steps of a workload: what is sent, with accounts, transfers and moments named symbolically."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Moment(NamedTuple):
    """A timestamp that each server knows for itself.

    `event` is (uid of a step, index of an event) or None for the newest object so far.
    """

    event: tuple[int, int] | None
    delta: int


Value = int | Moment
Event = dict[str, Value]


@dataclass(frozen=True)
class Step:
    """One or more packets of one operation, submitted at once, and a pause afterwards."""

    uid: int
    operation: int
    packets: tuple[tuple[Event, ...], ...]
    pause: float = 0.0

    def only(self, packets: tuple[tuple[Event, ...], ...]) -> Step:
        """The same step with other packets."""
        return replace(self, packets=packets)
