"""Interruptions: Ctrl-C, SIGTERM and a closed terminal, and what they may not cut in two.

The first of them ends a command, by KeyboardInterrupt. Whatever comes after it is answered by a
line and changes nothing: the command is putting in order what it has begun, which has its bounds.
What stops a replica and starts it again is ``whole``: there the first one waits, too. Children that
must not end meanwhile need a session of their own: a terminal's Ctrl-C reaches everybody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# With vfork a child is in its parent's session for a moment in which a signal ends it. After a fork
# it has our handlers until it is a program of its own, in its own session.
subprocess._USE_VFORK = False  # type: ignore[misc]

#: What may not be cut in two just now, innermost last.
_doing: list[str] = []
_is_ending = _is_due = False
_raised: BaseException = KeyboardInterrupt()
#: Forks under way, and how long an interruption waits for them. They run hooks, and Python swallows
#: what is raised in one: the interruption would be lost, and the lock that it held stay locked.
_forks = 0
_FORK_S = 0.05


@contextmanager
def heard() -> Iterator[None]:
    """Within, all of them interrupt; what was ignored before, as by ``nohup``, stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _is_ending
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        _is_ending = False
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(by: BaseException | None = None) -> None:
    """From here on, to the end of the program; ``by`` is raised in place of KeyboardInterrupt."""
    global _raised
    _raised = by or KeyboardInterrupt()
    if by:  # gevent's: it forks for each child, where Python itself runs no hooks
        os.register_at_fork(
            before=_begin_fork, after_in_parent=_end_fork, after_in_child=_forget_forks
        )
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)


@contextmanager
def whole(doing: str) -> Iterator[None]:
    """Let nothing interrupt what is within; ``doing`` tells a person what is waited for."""
    _doing.append(doing)
    try:
        yield
    finally:
        _doing.remove(doing)
    if _is_due and not _doing:
        _end()


def say(line: str) -> None:
    """Tell a person, if there still is one: a terminal that is gone keeps us from nothing."""
    try:
        print(line, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())


def _begin_fork() -> None:
    global _forks
    _forks += 1


def _end_fork() -> None:
    global _forks
    _forks -= 1


def _forget_forks() -> None:
    global _forks
    _forks = 0


def _interrupted(_number: int, frame: FrameType | None) -> None:
    global _is_due
    if _forks or (frame and frame.f_code in (_begin_fork.__code__, _end_fork.__code__)):
        signal.signal(signal.SIGALRM, _interrupted)
        signal.setitimer(signal.ITIMER_REAL, _FORK_S)
    elif _is_ending or _doing:
        _is_due = not _is_ending
        doing = _doing[-1] if _doing else "ending what was begun"
        say(f"interrupted: please wait, {doing}")
    else:
        _end()


def _end() -> None:
    global _is_ending, _is_due
    _is_ending, _is_due = True, False
    raise _raised
