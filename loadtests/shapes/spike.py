"""A sudden peak in the middle, to see how long recovery takes."""

from __future__ import annotations

from loadtests.run import profiles
from loadtests.run.shaping import Profile


class Spike(Profile):
    """See loadtests/run/profiles.py."""

    level = staticmethod(profiles.spike)
