"""The kinds of value on a command line. Each function reads one; ValueError says what was found."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_UNITS_READ = {unit.lower(): unit for unit in _UNITS} | {"bytes": ""}


class Size(NamedTuple):
    """A number of bytes, as it was written."""

    amount: int
    unit: str

    @property
    def bytes(self) -> int:
        """In bytes."""
        return self.amount * _UNITS[self.unit]

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"


def boolean(text: str) -> bool:
    """The value of a switch; it may be left out."""
    return choice("true", "false")(text) == "true"


def choice(*allowed: str) -> Callable[[str], str]:
    """One of two words."""

    def read(text: str) -> str:
        if text not in allowed:
            expected = " or ".join(f"'{each}'" for each in allowed)
            raise ValueError(f"expected one of {expected}, but found '{text}'")
        return text

    return read


def integer(bits: int) -> Callable[[str], int]:
    """An unsigned number of so many bits; underscores may separate its digits."""

    def read(text: str) -> int:
        wrong = f"expected an integer value, but found '{text}' (invalid digit)"
        return _integer(text, text, bits, wrong)

    return read


def size(text: str) -> Size:
    """Bytes, with a unit or without, such as 32KiB."""
    digits = re.match(r"[0-9_]*", text)
    number = digits[0] if digits else ""
    amount = _integer(number, text, 64, f"expected a size, but found: '{text}'")
    unit = _UNITS_READ.get(text[len(number) :].lower())
    if unit is None:
        raise ValueError(f"invalid unit in size, needed KiB, MiB, GiB or TiB: '{text}'")
    if Size(amount, unit).bytes >= 1 << 64:
        raise ValueError(f"size in bytes exceeds 64-bit unsigned integer: '{text}'")
    return Size(amount, unit)


def ratio(text: str) -> str:
    """A share of the whole, such as 1/3, or 0."""
    if text == "0":
        return text
    parts = text.split("/", 1)
    if len(parts) < 2:
        raise ValueError(f"expected 'a/b' ratio, but found: '{text}'")
    numbers = []
    for part, name in zip(parts, ("numerator", "denominator"), strict=True):
        try:
            numbers.append(integer(64)(part))
        except ValueError:
            raise ValueError(f"invalid {name}: '{text}'") from None
    if not numbers[1]:
        raise ValueError(f"denominator is zero: '{text}'")
    if numbers[0] > numbers[1]:
        raise ValueError(f"ratio greater than 1: '{text}'")
    return text


def text(value: str) -> str:
    """Anything."""
    return value


def _integer(digits: str, whole: str, bits: int, invalid: str) -> int:
    """A number in decimal digits that stand in `whole`; the first thing wrong with it is told."""
    if len(digits) > 1 and digits[0] == "0":
        raise ValueError(f"leading zero disallowed: '{whole}'")
    if not re.fullmatch(r"[0-9a-fA-F_]+", digits) or "_" in (digits[0], digits[-1]):
        raise ValueError(invalid)
    value = 0
    for digit in digits.replace("_", ""):
        if digit not in "0123456789":
            raise ValueError(invalid)
        value = 10 * value + int(digit)
        if value >= 1 << bits:
            raise ValueError(f"value exceeds {bits}-bit unsigned integer: '{whole}'")
    return value
