"""Five steps up to the peak: where does it begin to hurt?"""

from __future__ import annotations

from loadtests import profiles
from loadtests.shaping import Profile


class Step(Profile):
    """See loadtests/profiles.py."""

    def level(self, elapsed: float) -> float:
        """The share of the peak."""
        return profiles.step(elapsed)
