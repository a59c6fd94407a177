"""The base of ``shapes/``: a profile as a locust shape, of users or of the arrival rate.

Closed loop: the number of users follows the profile, with --users at its peak. Open loop: the users
are a pool, and the rate of arrivals follows it, with --rate at its peak. Both for --run-time.
"""

from __future__ import annotations

from locust import LoadTestShape

from abc import abstractmethod
from typing import Any

#: Users start and stop within these seconds: a profile's steps are meant to be steep.
RAMP_S = 2.0


class Profile(LoadTestShape):
    """Subclasses say what share of the peak is due when."""

    abstract = True
    use_common_options = True

    @abstractmethod
    def level(self, elapsed: float) -> float:
        """The share of the peak, 0 to 1, at a share of the run, 0 to 1."""

    def tick(self) -> tuple[int, float] | None:
        """Called by locust once a second."""
        options = self.runner.environment.parsed_options
        if not options.run_time:
            raise ValueError("a shape needs --run-time: expected seconds, found none")
        elapsed = self.get_run_time() / options.run_time
        if elapsed >= 1:
            return None
        level, users = self.level(elapsed), options.num_users or 1
        if options.rate:
            set_rate(self.runner, options.rate * level)
        else:
            users = max(1, round(users * level))
        return users, max(1.0, (options.num_users or 1) / RAMP_S)


def set_rate(runner: Any, rate: float) -> None:
    """Arrivals a second, shared by all workers."""
    workers = max(1, getattr(runner, "worker_count", 1))
    runner.send_message("load_rate", {"rate": rate / workers})
