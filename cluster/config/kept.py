"""Where the repository keeps what outlives a cluster's data files. None of it is on their disk."""

from __future__ import annotations

import os
from pathlib import Path

from cluster import REPOSITORY


def backups() -> Path:
    """Those of all deployments: $BACKUP_DIR, else ``backups/`` of the repository."""
    return (REPOSITORY / _named("BACKUP_DIR", "backups")).absolute()


def runs() -> Path:
    """Of load: $LOADTESTS_RUNS, else ``runs/`` of the repository."""
    return _named("LOADTESTS_RUNS", REPOSITORY / "runs")


def records() -> Path:
    """Of the clusters that have existed: $RECORDS_DIR, else ``.clusters/`` of the repository."""
    return REPOSITORY / _named("RECORDS_DIR", ".clusters")


def _named(variable: str, default: str | Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()
