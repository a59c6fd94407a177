"""``make backups``: a cluster's sets, packed here and in its repository, oldest first."""

from __future__ import annotations

from collections.abc import Mapping

import click
from rich.console import Console
from rich.table import Column, Table

from cluster.command import by_inventory
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.operate.backup import repository, sets
from cluster.operate.backup.sets import Manifest

HERE, THERE, GONE = "here", "repository", "gone from the repository"


def listed(deployment: Deployment) -> dict[str, tuple[str, Manifest | None]]:
    """Name → where it is, and its manifest if this machine has it; oldest first.

    Raises Refusal where the repository cannot be asked.
    """
    root = sets.directory(deployment.name)
    known = {p.name: m for p, m in sets.of_cluster(sets.complete(root), deployment).items()}
    there = repository.names(deployment) if deployment.repository else []
    found: dict[str, tuple[str, Manifest | None]] = {}
    for name in sorted({*known, *there}):
        manifest = known.get(name)
        is_here = manifest is not None and not manifest.is_stored
        found[name] = HERE if is_here else THERE if name in there else GONE, manifest
    return found


@click.command()
@by_inventory
def main(file: str) -> None:
    """List a cluster's backups, oldest first: what FROM= may name.

    Exit codes: 0 listed, also where there is none; 2 refused.
    """
    deployment = inventory.read(file)
    found = listed(deployment)
    print(f"{deployment.whose}: {len(found)} backups")
    if found:
        Console().print(table_of(found))


def table_of(found: Mapping[str, tuple[str, Manifest | None]]) -> Table:
    """One row for each; a name is pasted, so it is never cut, however narrow the terminal. Pure."""
    titles = ("where", "release", "data", "packed or new", "transfers before it")
    table = Table(Column("name", no_wrap=True), *titles, box=None)
    for name, (where, manifest) in found.items():
        table.add_row(name, where, *(_described(manifest) if manifest else ("", "", "", "")))
    return table


def _described(manifest: Manifest) -> tuple[str, str, str, str]:
    size, takes = manifest.data_size / 1024**2, manifest.size / 1024**2
    before = str(manifest.before) if manifest.before else "not read"
    return manifest.release, f"{size:,.0f} MiB", f"{takes:,.1f} MiB", before
