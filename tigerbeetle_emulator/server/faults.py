"""Misbehaviour on request, to test the programs that use the ledger."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

LIES = ("lose_commits", "double_transfers", "stale_reads")
RATES = ("drop_replies", "refuse", "evict", *LIES)
DURATIONS = ("latency", "latency_jitter", "stop_every", "stop_for")
FIELDS = ("seed", *DURATIONS, *RATES)


@dataclass
class Faults:
    """What goes wrong, how often. All off by default; may be changed while the server runs.

    Durations are seconds, rates are probabilities 0..1 drawn from a generator seeded with `seed`.
    Raises ValueError or TypeError for a value that cannot be, AttributeError for an unknown field,
    when made and whenever one is assigned.
    """

    seed: int = 0
    latency: float = 0.0  # every reply is sent this much later ...
    latency_jitter: float = 0.0  # ... plus up to this much
    drop_replies: float = 0.0  # the request is executed, its reply is never sent
    refuse: float = 0.0  # a new connection is closed at once
    evict: float = 0.0  # a request is not executed, its client is evicted
    stop_every: float = 0.0  # after this long all connections and listeners are closed ...
    stop_for: float = 1.0  # ... and come back after this long
    # What a ledger must never do, to test the programs that check it: see `lies`.
    lose_commits: float = 0.0  # transfers are acknowledged, and not created
    double_transfers: float = 0.0  # created transfers move their amount twice
    stale_reads: float = 0.0  # a lookup of accounts is answered as the first time it was asked
    _random: random.Random = field(init=False, repr=False, compare=False)

    if not TYPE_CHECKING:  # a type checker that saw this would let every name pass

        def __setattr__(self, name: str, value: Any) -> None:
            check(name, value)
            object.__setattr__(self, name, value)
            if name == "seed":
                chosen = random.Random(value)  # noqa: S311 reproducible, not secret
                object.__setattr__(self, "_random", chosen)

    def strikes(self, rate: float) -> bool:
        """Whether a fault of this rate happens now."""
        return rate > 0 and self._random.random() < rate

    def delay(self) -> float:
        """Seconds to hold the next reply back."""
        if not self.latency_jitter:
            return self.latency
        return self.latency + self._random.random() * self.latency_jitter

    def describe(self) -> str:
        """The faults that are on, for the log; empty when none is."""
        given = {name: getattr(self, name) for name in (*DURATIONS, *RATES)}
        if not self.stop_every:
            del given["stop_for"]
        return ", ".join(f"{name}={value}" for name, value in given.items() if value)


def check(name: str, value: Any) -> None:
    """Raise AttributeError, TypeError or ValueError unless a field can have this value."""
    if name not in FIELDS:
        raise AttributeError(f"there is no fault {name!r}; there are {', '.join(FIELDS)}")
    if name == "seed":
        if not isinstance(value, int):
            raise TypeError(f"seed: expected an integer, found {value!r}")
    elif not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, found {value!r}")
    elif name in RATES and not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a rate 0..1, found {value}")
    elif name in DURATIONS and not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected seconds >= 0, found {value}")


def checked(faults: object) -> Faults:
    """`faults`, if that is what they are. Raises TypeError."""
    if not isinstance(faults, Faults):
        raise TypeError(f"faults: expected Faults(...), found {faults!r}; Faults() ends them all")
    return faults
