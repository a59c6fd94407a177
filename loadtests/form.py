"""The web UI's form, judged as the command line is before locust looks at it.

locust converts each value as it can, answers HTTP 500 where it cannot, and starts whatever that is.
"""

from __future__ import annotations

from argparse import Action, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from typing import Any

from cluster.refusal import Refusal
from loadtests import options

#: Fields that locust knows itself: the option, and how its value is read.
_LOCUSTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "user_count": ("num_users", options.whole),
    "spawn_rate": ("spawn_rate", options.number),
    "run_time": ("run_time", lambda text: options.duration(text) if text else None),
}


def read(fields: Mapping[str, str], settings: Namespace, ours: Mapping[str, Action]) -> Namespace:
    """The options as the form leaves them; ``ours`` are the parser's that it shows, by name.

    Raises Refusal for what the command line refuses.
    """
    found = Namespace(**vars(settings))
    for name, text in fields.items():
        if name in _LOCUSTS:
            option, convert = _LOCUSTS[name]
            setattr(found, option, _converted(option, text, convert))
        elif name in ours:
            setattr(found, name, _of(ours[name], text))
    for name, least, expected in (
        ("num_users", 1, "1 or more"),
        ("spawn_rate", 1e-3, "0.001 or more"),
    ):
        value = getattr(found, name)
        if value is None or not least <= value < float("inf"):
            raise _refusal(name, f"expected {expected}, found {value}")
    options.settle(found)
    return found


def _of(action: Action, text: str) -> Any:
    """A value of one of our own options."""
    value = _converted(action.dest, text, action.type if callable(action.type) else str)
    if action.choices is not None and value not in action.choices:
        known = ", ".join(map(str, action.choices))
        raise _refusal(action.dest, f"expected one of {known}, found {text!r}")
    return value


def _converted(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except (ArgumentTypeError, ValueError) as error:
        raise _refusal(name, str(error)) from None


def _refusal(name: str, why: str) -> Refusal:
    shown = {"num_users": "users"}.get(name, name).replace("_", "-")
    return Refusal(f"--{shown}: {why}. Fix: change the option")
