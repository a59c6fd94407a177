"""Scenarios: traffic under a name. A file gives the options that make it; what a person gives wins.

``loadtests/scenarios/`` holds those that come with this repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
from pydantic import Field, field_validator

from cluster.refusal import Refusal
from loadtests.traffic import described, mix, profile

FOLDER = Path(__file__).parent.parent / "scenarios"


class Wallets(described.Table):
    """The population."""

    count: int | None = Field(default=None, ge=2, description="wallets of each worker, 2 or more")
    skew: float | None = Field(
        default=None, ge=0, lt=100, description="Zipf exponent of their popularity, 0 or more"
    )


class Arrivals(described.Table):
    """When their owners act."""

    rate: float | None = Field(
        default=None, gt=0, description="open loop: actions/s at the peak, more than 0"
    )
    process: Literal["poisson", "fixed"] | None = Field(
        default=None, description="poisson or fixed"
    )
    profile: str | None = Field(default=None, description="a profile, by its name")
    users: int | None = Field(
        default=None, ge=1, description="users at the peak, 1 or more; in an open loop the pool"
    )
    think_s: float | None = Field(
        default=None, ge=0, description="a user's pause between actions, 0 or more seconds"
    )
    duration_s: int | None = Field(default=None, ge=1, description="1 second or more")


class Scenario(described.Described):
    """A file. What it leaves out is as it is without a scenario."""

    actions: dict[str, int] | None = Field(
        default=None, description="weights of actions, each a whole number"
    )
    wallets: Wallets = Field(default=Wallets(), description="a table: count, skew")
    arrivals: Arrivals = Field(
        default=Arrivals(),
        description="a table: rate, process, profile, users, think_s, duration_s",
    )

    @field_validator("actions")
    @classmethod
    def _known(cls, weights: dict[str, int] | None) -> dict[str, int] | None:
        return None if weights is None else mix.judged(weights)

    def options(self) -> dict[str, Any]:
        """The options that it gives, by the names they have in locust."""
        arrivals = self.arrivals
        every = {
            "actions": mix.told(self.actions) if self.actions else None,
            "wallets": self.wallets.count,
            "skew": self.wallets.skew,
            "rate": arrivals.rate,
            "arrivals": arrivals.process,
            "arrival_profile": arrivals.profile,
            "num_users": arrivals.users,
            "think_s": arrivals.think_s,
            "run_time": arrivals.duration_s,
        }
        return {name: value for name, value in every.items() if value is not None}


def read(name: str) -> Scenario:
    """The scenario of this name, or in this file. Raises Refusal and OSError."""
    path = described.find("--scenario", name, FOLDER)
    found = described.read(path, Scenario)
    if found.arrivals.profile:
        try:
            profile.read(found.arrivals.profile)
        except Refusal as error:
            raise Refusal(f"{path} arrivals.profile: {error}") from None
    return found


@click.command()
def main() -> None:
    """List the scenarios and the arrival profiles, with a line each."""
    scenarios = {name: read(name).about for name in described.names(FOLDER)}
    profiles = {name: profile.read(name).about for name in described.names(profile.FOLDER)}
    width = max(map(len, [*scenarios, *profiles]))
    for title, found in (
        ("SCENARIO=, of a load, its web UI and a capacity search:", scenarios),
        ("PROFILE=, of a load's rate or users over its duration:", profiles),
    ):
        print(title)
        for name, about in found.items():
            print(f"  {name:{width}}  {about}")
