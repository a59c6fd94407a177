"""Wait with a bound, and report what was last seen."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.refusal import Failed

#: A look may cost what is waited for the processor: it rests as long as it took, up to this.
_REST_MAX_S = 1.0


class Expired(Failed):
    """A wait reached its bound. ``str()`` says for what, how long, and what was last seen."""


def wait_until(
    observe: Callable[[], tuple[bool, str]],
    *,
    what: str,
    timeout_s: float,
    interval_s: float = 0.2,
    on_progress: Callable[[str], None] = lambda seen: None,
) -> str:
    """Call ``observe`` until its first value is true; return its second value, what was seen.

    ``on_progress`` is called whenever what was seen has changed. An exception of ``observe``
    ends the wait at once. Raises Expired after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    last = ""
    while True:
        begun = time.monotonic()
        done, seen = observe()
        if seen != last:
            on_progress(seen)
            last = seen
        if done:
            return seen
        now = time.monotonic()
        if now >= deadline:
            raise Expired(f"waited {timeout_s:g} s for {what}; last seen: {last}")
        time.sleep(max(interval_s, min(now - begun, _REST_MAX_S)))
