"""How the load changes over a run, as a share of its peak: pure functions of elapsed time."""

from __future__ import annotations

STEPS = 5
SPIKE_BASE = 0.2
SOAK_RAMP = 0.1


def step(elapsed: float) -> float:
    """Five equal steps up to the peak; ``elapsed`` is the share of the run that is over, 0 to 1."""
    return min(STEPS, int(elapsed * STEPS) + 1) / STEPS


def spike(elapsed: float) -> float:
    """A fifth of the peak, and all of it in the middle fifth of the run."""
    return 1.0 if 0.4 <= elapsed < 0.6 else SPIKE_BASE


def soak(elapsed: float) -> float:
    """A slow rise, a long time at the peak, a slow fall: for hours, to see what grows."""
    return max(0.05, min(1.0, elapsed / SOAK_RAMP, (1.0 - elapsed) / SOAK_RAMP))
