"""An arrival profile as a locust shape, of users or of the arrival rate.

Closed loop: the number of users follows the profile, with --users at its peak. Open loop: the users
are a pool, and the rate of arrivals follows it, with --rate at its peak. Both for --run-time.
"""

from __future__ import annotations

from locust import LoadTestShape

from typing import Any

from loadtests.run.shaping import set_rate
from loadtests.traffic import profile

#: Users start and stop within these seconds: a profile's steps are meant to be steep.
RAMP_S = 2.0


def give(environment: Any, name: str) -> None:
    """Let the profile of this name shape what comes; without one, nothing does. Raises Refusal.

    A shape from a file of locust's own stays. In a locustfile, this module must not be imported
    name by name: locust takes every shape for its own that it finds there.
    """
    if environment.shape_class is None or isinstance(environment.shape_class, ProfileShape):
        made = ProfileShape(name, profile.read(name), environment.runner) if name else None
        environment.shape_class = made


class ProfileShape(LoadTestShape):
    """Once a second, what share of the peak is due."""

    use_common_options = True

    def __init__(self, name: str, curve: profile.Profile, runner: Any) -> None:
        super().__init__()
        self._name, self._profile, self.runner = name, curve, runner

    def __str__(self) -> str:
        run_s = self.runner.environment.parsed_options.run_time
        span = self._profile.span()
        return f"{self._name}, {span} in {run_s} s" if span else self._name

    def tick(self) -> tuple[int, float] | None:
        """Called by locust once a second."""
        options = self.runner.environment.parsed_options
        elapsed = self.get_run_time() / options.run_time
        if elapsed >= 1:
            return None
        level, users = self._profile.level(elapsed), options.num_users or 1
        if options.rate:
            set_rate(self.runner, options.rate * level)
        else:
            users = max(1, round(users * level))
        return users, max(1.0, (options.num_users or 1) / RAMP_S)
