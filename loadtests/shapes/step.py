"""Five steps up to the peak, to see where latency begins to grow."""

from __future__ import annotations

from loadtests.run import profiles
from loadtests.run.shaping import Profile


class Step(Profile):
    """See loadtests/run/profiles.py."""

    level = staticmethod(profiles.step)
