"""The one kind of refusal: what cannot be done, in words for whoever asked. The lowest layer.

Wherever it is raised, ``python -m cluster`` prints it as one line and ends with its exit code, and
a task stops its host's deploy with it. A subclass exists only where somebody catches it to do
something else.
"""

from __future__ import annotations

import errno
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


class Interrupted(Refusal):
    """Something that a signal has ended; ``str()`` says how things are."""

    exit_code = 130


#: What to do about what a machine refuses, by the error's number.
_OF_MACHINE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "mount it for writing, or work in another place",
    errno.EACCES: "do this as whoever owns it, or give yourself the right to it",
    errno.EPERM: "do this as whoever owns it, or give yourself the right to it",
    errno.ENOENT: "bring it back, or install it",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}


def of_machine(error: OSError) -> Failed:
    """What this machine refused, where nobody knew what better to do about it."""
    what = str(error.filename or "this machine")
    found = error.strerror or str(error) or type(error).__name__
    fix = _OF_MACHINE.get(error.errno or 0, "look at this file, its disk and its rights")
    return Failed(what, expected="to read, write or run it", found=found, fix=fix)


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
    except (Refusal, OSError) as error:
        refusal = error if isinstance(error, Refusal) else of_machine(error)
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(refusal.exit_code)


def last_line(said: str) -> str:
    """What a program said last, which mostly is why it failed."""
    return (said.strip().splitlines() or ["no message"])[-1].strip()
