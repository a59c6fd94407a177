"""A sudden peak in the middle, to see how long recovery takes."""

from __future__ import annotations

from loadtests.run import profiles
from loadtests.run.shaping import Profile


class Spike(Profile):
    """See loadtests/run/profiles.py."""

    def level(self, elapsed: float) -> float:
        """The share of the peak."""
        return profiles.spike(elapsed)
