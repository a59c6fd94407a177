"""Mixes: how often wallet owners do what, as a weight of each action."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.refusal import Refusal
from loadtests.traffic.described import near

#: The usual proportions of an interactive wallet service.
USUAL: Mapping[str, int] = {
    "pay": 40,
    "deposit": 10,
    "withdraw": 10,
    "hold_and_capture": 8,
    "hold_and_void": 2,
    "hold_and_forget": 1,
    "exchange": 5,
    "balance": 19,
    "statement": 5,
}
#: What can be done at all: also a whole batch of a settlement.
ACTIONS = (*USUAL, "settle")
WEIGHT_MAX = 1000


def judged(weights: Mapping[str, int]) -> dict[str, int]:
    """The same without actions that never happen.

    Raises ValueError: what was expected, in a message for people.
    """
    for name, weight in weights.items():
        if name not in ACTIONS:
            known = ", ".join(ACTIONS)
            raise ValueError(f"actions of {known}{near(name, ACTIONS)} instead of {name!r}")
        if not 0 <= weight <= WEIGHT_MAX:
            raise ValueError(f"weights of 0 to {WEIGHT_MAX}, for {name} too")
    if not any(weights.values()):
        raise ValueError("one weight or more above 0")
    return {name: weight for name, weight in weights.items() if weight}


def parsed(text: str) -> dict[str, int]:
    """A mix as it stands on a command line; the usual one without a word. Raises Refusal."""
    try:
        pairs = [part.partition("=") for part in text.split(",")]
        if any(not weight.strip().isdecimal() for _, _, weight in pairs if text):
            raise ValueError("ACTION=WEIGHT,..., each weight a whole number")
        return judged({name.strip(): int(weight) for name, _, weight in pairs} if text else USUAL)
    except ValueError as error:
        fix = "for example pay=8,balance=2; leave it out for the usual mix"
        raise Refusal("--actions", expected=str(error), found=repr(text), fix=fix) from None


def told(weights: Mapping[str, int]) -> str:
    """The same as it stands on a command line."""
    return ",".join(f"{name}={weight}" for name, weight in weights.items())
