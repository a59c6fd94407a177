"""Is what is configured right, and what does it mean?"""

from __future__ import annotations

from pathlib import Path

import click

from cluster.command import by_inventory
from cluster.config import ENV_FILE, addresses, inventory, load
from cluster.config.deployment import Deployment


@click.command()
@click.argument("env_file", type=Path, default=ENV_FILE)
def of_file(env_file: Path) -> None:
    """Check ENV_FILE, by default env/tigerbittle.env, and say what it means."""
    cluster = load(env_file)
    print(f"cluster {cluster.id}, release {cluster.release}, at {cluster.addresses}")


@click.command()
@by_inventory
def of_inventory(file: str) -> None:
    """Check an inventory, and say what it is."""
    say(file)


def say(file: str) -> Deployment:
    """Say what an inventory is. Raises Refusal."""
    found = inventory.read(file)
    print(f"{found.name}: {found.label}, at {addresses(found.listed)}")
    return found
