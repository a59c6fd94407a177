"""Shapes, as pure functions."""

from __future__ import annotations

import pytest

from loadtests.run import profiles


@pytest.mark.parametrize("profile", [profiles.step, profiles.spike, profiles.soak])
def test_a_profile_stays_within_its_peak_and_reaches_it(profile) -> None:  # type: ignore[no-untyped-def]
    levels = [profile(i / 1000) for i in range(1000)]
    assert min(levels) > 0
    assert max(levels) == 1.0


def test_a_step_profile_never_falls() -> None:
    levels = [profiles.step(i / 100) for i in range(100)]
    assert levels == sorted(levels)
    assert len(set(levels)) == profiles.STEPS


def test_a_spike_is_over_before_the_run_is() -> None:
    assert profiles.spike(0.5) == 1.0
    assert profiles.spike(0.1) == profiles.spike(0.9) == profiles.SPIKE_BASE
