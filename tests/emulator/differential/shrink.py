"""Making a failing sequence short: leave steps and events out while it still fails."""

from __future__ import annotations

from collections.abc import Callable

from tests.emulator.differential.steps import Step

Fails = Callable[[list[Step]], bool]


def shrink(steps: list[Step], fails: Fails, trials: int = 300) -> list[Step]:
    """A short sequence that still fails, found within so many trials.

    Leaves out ever smaller runs of steps, then single events. `fails` runs a sequence afresh.
    """
    budget = [trials]

    def still(candidate: list[Step]) -> bool:
        if budget[0] <= 0:
            return False
        budget[0] -= 1
        return fails(candidate)

    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            candidate = steps[:start] + steps[start + size :]
            if candidate and still(candidate):
                steps = candidate
            else:
                start += size
        size //= 2
    return _shrink_events(steps, still)


def _shrink_events(steps: list[Step], still: Fails) -> list[Step]:
    for position in reversed(range(len(steps))):
        events = [
            (packet, index)
            for packet, each in enumerate(steps[position].packets)
            for index in range(len(each))
        ]
        for packet, index in reversed(events):
            packets = list(steps[position].packets)
            packets[packet] = packets[packet][:index] + packets[packet][index + 1 :]
            shorter = steps[position].only(tuple(each for each in packets if each))
            if not shorter.packets:
                continue
            candidate = [*steps[:position], shorter, *steps[position + 1 :]]
            if still(candidate):
                steps = candidate
    return steps
