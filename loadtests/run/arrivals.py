"""Open loop: when actions are meant to start, whether or not the system keeps up.

A closed loop sends less when the system slows down, so it cannot measure the latency of the actions
that it did not send. Here a schedule sets the instants. Latency counts from the intended instant,
and an action that could not start in time is counted as dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Literal

import gevent
import numpy as np
from gevent import get_hub

Process = Literal["poisson", "fixed"]
_TICK_S = 0.05


class Overdue(float):
    """An intended instant at which no user was free; one was ``free_at``. perf_counter seconds."""

    __slots__ = ("free_at",)

    def __new__(cls, instant: float, free_at: float) -> Overdue:
        """A float that knows it."""
        made = super().__new__(cls, instant)
        made.free_at = free_at
        return made

    free_at: float


class Arrivals:
    """Gives intended instants to a pool of greenlets, at a rate that may change at any time."""

    def __init__(
        self,
        *,
        process: Process = "poisson",
        drop_after_s: float,
        on_drop: Callable[[int], None],
        seed: int = 0,
    ) -> None:
        """Nothing arrives until ``rate`` is set. ``on_drop(n)``: n arrivals were too late."""
        self._rate = 0.0
        self._closed = False
        self._next_at = perf_counter()
        self._drop_after_s, self._on_drop = drop_after_s, on_drop
        self._gap = gaps(process, seed).__next__
        self._left = self._gap()  # of the gap, in units of the mean one
        self._due: deque[float] = deque()
        self._idle: deque[list[Any]] = deque()
        self._hub = get_hub()
        self._pacer = gevent.spawn(self._pace)

    @property
    def rate(self) -> float:
        """Arrivals a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if rate == self._rate:
            return
        now = perf_counter()
        self._until(now)
        # What is left of a gap is as long in arrivals: a rate that changes each second loses none.
        if self._rate > 0:
            self._left = (self._next_at - now) * self._rate
        if rate > 0:
            self._next_at = now + self._left / rate
        self._rate = rate

    def take(self) -> float | None:
        """Wait for the next arrival; its intended instant on the perf_counter clock.

        None: there will be no more.
        """
        self._drop_late()
        if self._closed:
            return None
        if self._due:  # the pacer has found nobody for it
            return Overdue(self._due.popleft(), perf_counter())
        slot: list[Any] = [gevent.getcurrent()]
        self._idle.append(slot)
        try:
            instant: float | None = self._hub.switch()
        except BaseException:
            slot[0] = None  # killed while idle: not to be woken
            raise
        return instant

    def close(self) -> None:
        """No more arrivals: release greenlets that wait; arrivals that are due count as dropped."""
        if self._closed:
            return
        self._closed = True
        self._pacer.kill()
        while self._idle:
            self._hub.loop.run_callback(self._wake, self._idle.popleft(), None)
        if self._due:
            self._on_drop(len(self._due))
            self._due.clear()

    def _pace(self) -> None:
        while True:
            self._until(perf_counter())
            self._drop_late()
            while self._due and self._idle:
                slot = self._idle.popleft()
                if slot[0] is not None:
                    self._hub.loop.run_callback(self._wake, slot, self._due.popleft())
            # Even at a slow rate, look often enough to follow a change of the rate.
            wait_s = self._next_at - perf_counter() if self._rate > 0 else _TICK_S
            gevent.sleep(min(max(wait_s, 0.0), _TICK_S))

    def _until(self, now: float) -> None:
        """Let arrive what is due by now."""
        while self._rate > 0 and self._next_at <= now:
            self._due.append(self._next_at)
            self._next_at += self._gap() / self._rate

    def _wake(self, slot: list[Any], instant: float | None) -> None:
        greenlet, slot[0] = slot[0], None
        if greenlet is None and instant is not None:
            self._due.appendleft(instant)  # its greenlet was killed meanwhile: back in the queue
        elif greenlet is not None:
            greenlet.switch(instant)

    def _drop_late(self) -> None:
        oldest, dropped = perf_counter() - self._drop_after_s, 0
        while self._due and self._due[0] < oldest:
            self._due.popleft()
            dropped += 1
        if dropped:
            self._on_drop(dropped)


def gaps(process: Process, seed: int) -> Iterator[float]:
    """Gaps between arrivals in units of the mean gap: exponential for Poisson, else 1."""
    random = np.random.default_rng([seed, 0x0AEA])
    while True:
        if process == "fixed":
            yield 1.0
        else:
            yield from random.exponential(size=4096).tolist()
