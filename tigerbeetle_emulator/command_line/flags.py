"""How a command line is read: strictly, as the genuine server does, so that a slip is no setting.

Flags are `--name=value`, or `--name` alone for a switch, each at most once and all before the path;
there are no abbreviations. What is wrong is told in the genuine server's words, with what to do
about it behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .values import boolean

Values = dict[str, Any]
PATH = "<path>"  # the positional argument of most verbs


class UsageError(ValueError):
    """The command line cannot be meant; the message says why."""


class Flag(NamedTuple):
    """One flag: its name with dashes, and how its value is read (ValueError: in these words)."""

    name: str
    read: Callable[[str], Any] = boolean
    required: bool = False


def read(arguments: Sequence[str], flags: Sequence[Flag], positional: str = "") -> Values:
    """The value of every flag that is given, by name, and of the positional argument by its own.

    Raises UsageError, for the same thing as the genuine server where several are wrong.
    """
    values: Values = {}
    counts: Counter[str] = Counter()
    for argument in arguments:
        named = [flag for flag in flags if argument.startswith(flag.name)]
        if named:
            flag = max(named, key=lambda flag: len(flag.name))
            if positional in values:
                raise UsageError(
                    f"unexpected trailing option: '{argument}'; options come before {positional}"
                )
            counts[flag.name] += 1
            values[flag.name] = _value(flag, argument)
        elif not positional or positional in values:
            raise UsageError(f"unexpected argument: '{argument}'")
        elif not argument:
            raise UsageError(f"{positional}: empty argument")
        elif argument[0] == "-":
            raise UsageError(f"unexpected argument: '{argument}'; --help shows all options")
        else:
            values[positional] = argument
    for flag in _order_of_checks(flags):
        if counts[flag.name] > 1:
            raise UsageError(f"{flag.name}: duplicate argument; give it once")
        if flag.required and not counts[flag.name]:
            raise UsageError(f"{flag.name}: argument is required")
    if positional and positional not in values:
        raise UsageError(f"{positional}: argument is required, behind the options")
    return values


def _value(flag: Flag, argument: str) -> Any:
    name, rest = flag.name, argument[len(flag.name) :]
    if not rest and flag.read is boolean:
        return True
    if not rest:
        raise UsageError(f"{name}: expected value separator '='")
    if rest[0] != "=":
        raise UsageError(
            f"{name}: expected value separator '=', but found '{rest[0]}' in '{argument}'"
        )
    if rest == "=":
        raise UsageError(f"{name}: argument requires a value")
    try:
        return flag.read(rest[1:])
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def _order_of_checks(flags: Sequence[Flag]) -> list[Flag]:
    """Longer names first; those of equal length as the genuine server's own sorting leaves them."""
    order = list(flags)
    for right in range(len(order)):
        for left in range(right):
            if len(order[left].name) < len(order[right].name):
                order[left], order[right] = order[right], order[left]
    return order
