"""The one kind of refusal: what cannot be done, in words for whoever asked. The lowest layer.

Wherever it is raised, ``python -m cluster`` prints it as one line and ends with its exit code, and
a task stops its host's deploy with it. A subclass exists only where somebody catches it to do
something else.
"""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

#: What is pasted to its end: a full stop behind it would be part of it.
_COMMAND_LAST = re.compile(r"(\bmake [a-z-]+|=\S*)$")


class Refusal(Exception):  # noqa: N818 - reads as what happened
    """Something that is not done; ``str()`` names what, expected, found and fix.

    A text that has another form is given as a whole.
    """

    exit_code = 2  # nothing was touched

    def __init__(
        self, what: str, *, expected: object = "", found: object = "", fix: str = ""
    ) -> None:
        self.what, self.expected, self.found, self.fix = what, expected, found, fix
        stop = "" if _COMMAND_LAST.search(fix) else "."
        told = f"{what}: expected {expected}, found {found}. Fix: {fix}{stop}"
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
    errno.ENOLCK: "put it on a disk of this machine: a file system that cannot lock serves nobody",
    errno.EOPNOTSUPP: "put it on a disk of this machine, such as ext4 or XFS",
}


def of_machine(error: OSError) -> Failed:
    """What this machine refused, where nobody knew what better to do about it."""
    what = str(error.filename or "this machine")
    found = error.strerror or str(error) or type(error).__name__
    fix = _OF_MACHINE.get(error.errno or 0, "look at this file, its disk and its rights")
    return Failed(what, expected="to read, write or run it", found=found, fix=fix)


def refusal_of(error: Refusal | OSError) -> Refusal:
    """The same, in the words of a refusal."""
    return error if isinstance(error, Refusal) else of_machine(error)


#: What Python raises where a text has another form than whoever reads it was promised.
_OF_FORM = (ValueError, LookupError, TypeError, AttributeError, zlib.error)


@contextmanager
def understood(what: object, *, expected: str, fix: str) -> Iterator[None]:
    """Read within what other programs have written: whatever it is instead, it is refused."""
    try:
        yield
    except _OF_FORM as error:
        lines = str(error).splitlines()  # pydantic's first one only counts, in its own words
        said = " ".join(lines[1:3]) or "".join(lines)
        found = said if isinstance(error, ValueError) else "something else"
        raise Refusal(str(what), expected=expected, found=found, fix=fix) from None


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
        refusal = refusal_of(error)
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(refusal.exit_code)


def decoded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    """The same with text, whatever was printed: under gevent, ``errors="replace"`` is not heard."""
    said = (each.decode(errors="replace") for each in (done.stdout or b"", done.stderr or b""))
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def last_line(said: str) -> str:
    """What a program said last, which mostly is why it failed."""
    return (said.strip().splitlines() or ["no message"])[-1].strip()
