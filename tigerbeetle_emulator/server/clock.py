"""The server's time: its own, whatever the process around it takes for the time.

Tests freeze and move the time of their process. A server inside that believed them would expire
every hold at once, or hold a reply back for ever. So it takes the functions that freezegun and
time-machine leave alone, unless it is asked to follow the test.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from typing import Any


def _held(name: str) -> Callable[[], Any]:
    """The genuine `time.<name>`, in a closure: freezegun replaces whatever a module names."""
    freezegun = sys.modules.get("freezegun.api")  # which may have replaced it already
    function = getattr(freezegun, f"real_{name}", getattr(time, name))
    return lambda: function()


_time_ns: Callable[[], int] = _held("time_ns")
_monotonic_ns: Callable[[], int] = _held("monotonic_ns")
#: Seconds since some moment, for waiting.
monotonic: Callable[[], float] = _held("monotonic")


def _epoch() -> int:
    """The machine's time when `_monotonic_ns` was 0."""
    hatch = getattr(sys.modules.get("time_machine"), "escape_hatch", None)
    now: int = hatch.time.time_ns() if hatch and hatch.is_travelling() else _time_ns()
    return now - _monotonic_ns()


_EPOCH = _epoch()


def _real() -> int:
    """The machine's time in ns since 1970."""
    # time-machine changes `time.time_ns` itself, at any moment; it leaves the monotonic clock.
    if "time_machine" in sys.modules:
        return _EPOCH + _monotonic_ns()
    return _time_ns()


def _seen_by_the_test() -> int:
    """The same as `datetime` has it, frozen or not: what all such libraries agree on."""
    return round(datetime.datetime.now().timestamp() * 1_000_000) * 1000


class Clock:
    """The time of one server.

    It runs with the machine's clock, `ahead` of it by so many ns; or it follows the time that the
    test sees.
    """

    def __init__(self, *, follows: bool = False) -> None:
        self.follows = follows
        self.ahead = 0

    def now(self) -> int:
        """Nanoseconds since 1970."""
        return _seen_by_the_test() if self.follows else _real() + self.ahead

    def not_before(self, moment: int) -> None:
        """Go on from `moment`, if that is still to come."""
        if not self.follows:
            self.ahead += max(0, moment - self.now())
