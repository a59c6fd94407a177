"""Bounded waiting that tells what it last saw."""

from __future__ import annotations

import time
from collections.abc import Callable


class Expired(Exception):  # noqa: N818 - reads as what happened
    """A wait ran into its bound. ``str()`` says what was awaited, how long, and the last sight."""


def wait_until(
    observe: Callable[[], tuple[bool, str]],
    *,
    what: str,
    timeout_s: float,
    interval_s: float = 0.2,
    on_progress: Callable[[str], None] = lambda seen: None,
) -> str:
    """Call ``observe`` until its first value is true; return the sight that came with it.

    ``on_progress`` is called with each sight that differs from the one before. Whatever
    ``observe`` raises ends the wait at once. Raises Expired after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    last = ""
    while True:
        done, seen = observe()
        if seen != last:
            on_progress(seen)
            last = seen
        if done:
            return seen
        if time.monotonic() >= deadline:
            raise Expired(f"waited {timeout_s:g} s for {what}; last seen: {last}")
        time.sleep(interval_s)
