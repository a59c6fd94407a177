"""The one kind of refusal: what cannot be done, in words for whoever asked. The lowest layer.

Wherever it is raised, ``python -m cluster`` prints it as one line and ends with its exit code, and
a task stops its host's deploy with it. A subclass exists only where somebody catches it to do
something else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Refusal(Exception):  # noqa: N818 - reads as what happened
    """Something that is not done; ``str()`` names what, expected, found and fix.

    A text that has another form is given as a whole.
    """

    exit_code = 2  # nothing was touched

    def __init__(
        self, what: str, *, expected: object = "", found: object = "", fix: str = ""
    ) -> None:
        self.what, self.expected, self.found, self.fix = what, expected, found, fix
        told = f"{what}: expected {expected}, found {found}. Fix: {fix}."
        super().__init__(told if expected else what)


class Failed(Refusal):
    """Something that was begun, and did not succeed."""

    exit_code = 1


@contextmanager
def begun(so: str = "") -> Iterator[None]:
    """From here on something is touched: what refuses has failed. ``so`` says how that ended."""
    try:
        yield
    except Refusal as error:
        raise Failed(f"{error}{so}") from None


@contextmanager
def told() -> Iterator[None]:
    """End the program in one line and with an exit code, whatever runs it: pyinfra, or a command.

    An inventory file has no other way: pyinfra would print a traceback.
    """
    try:
        yield
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def last_line(said: str) -> str:
    """What a program said last, which mostly is why it failed."""
    return (said.strip().splitlines() or ["no message"])[-1].strip()
