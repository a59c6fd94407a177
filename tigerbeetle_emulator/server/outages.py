"""A server that comes and goes, on request."""

from __future__ import annotations

from collections.abc import Callable

from .faults import Faults
from .log import logger

_LOG = logger("faults")


class Outages:
    """Plans when a server leaves and comes back, and anew whenever its faults have changed."""

    def __init__(
        self,
        faults: Callable[[], Faults],
        after: Callable[[float, Callable[[], None]], None],
        leave: Callable[[], None],
        come_back: Callable[[], None],
    ) -> None:
        self._faults, self._after = faults, after
        self._leave, self._come_back = leave, come_back
        self._away = False
        self._plan: tuple[bool, float, float] | None = None

    def follow(self) -> None:
        """Do as the faults of the moment ask; to be called whenever they may have changed."""
        faults = self._faults()
        plan = (self._away, faults.stop_every, faults.stop_for)
        if plan == self._plan:
            return
        self._plan = plan
        if self._away:
            seconds = faults.stop_for if faults.stop_every else 0.0
            self._after(seconds, lambda: self._end(plan))
        elif faults.stop_every:
            self._after(faults.stop_every, lambda: self._begin(plan))

    def _begin(self, plan: tuple[bool, float, float]) -> None:
        if plan is self._plan:  # else there is a newer one
            _LOG.info("stopped for %s s on request", plan[2])
            self._leave()
            self._away = True
            self.follow()

    def _end(self, plan: tuple[bool, float, float]) -> None:
        if plan is self._plan:
            self._come_back()
            self._away = False
            _LOG.info("back")
            self.follow()
