"""A long time at the peak: what grows, what slows down?"""

from __future__ import annotations

from loadtests import profiles
from loadtests.shaping import Profile


class Soak(Profile):
    """See loadtests/profiles.py."""

    def level(self, elapsed: float) -> float:
        """The share of the peak."""
        return profiles.soak(elapsed)
