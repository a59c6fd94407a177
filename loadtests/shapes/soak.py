"""A long time at the peak, to see what grows and what slows down."""

from __future__ import annotations

from loadtests.run import profiles
from loadtests.run.shaping import Profile


class Soak(Profile):
    """See loadtests/run/profiles.py."""

    level = staticmethod(profiles.soak)
