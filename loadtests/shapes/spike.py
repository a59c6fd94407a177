"""A sudden peak in the middle: how long does it take to recover?"""

from __future__ import annotations

from loadtests import profiles
from loadtests.shaping import Profile


class Spike(Profile):
    """See loadtests/profiles.py."""

    def level(self, elapsed: float) -> float:
        """The share of the peak."""
        return profiles.spike(elapsed)
