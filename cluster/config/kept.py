"""Where the repository keeps what outlives a cluster's data files. None of it is on their disk."""

from __future__ import annotations

import os
from pathlib import Path

from cluster import REPOSITORY
from cluster.refusal import Refusal


def backups() -> Path:
    """Those of all deployments: $BACKUP_DIR, else ``backups/`` of the repository."""
    return (REPOSITORY / _named("BACKUP_DIR", "backups")).absolute()


def runs() -> Path:
    """Of load: $LOADTESTS_RUNS, else ``runs/`` of the repository."""
    return _named("LOADTESTS_RUNS", REPOSITORY / "runs")


def records() -> Path:
    """Of the clusters that have existed: $RECORDS_DIR, else ``.clusters/`` of the repository."""
    return REPOSITORY / _named("RECORDS_DIR", ".clusters")


def expanded(path: str | Path) -> Path:
    """The path, with a home in place of its ``~``. Raises Refusal where nobody knows that one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        found, fix = "one that is not known here", "set HOME, or write the path in full"
        raise Refusal(str(path), expected="the home of a user", found=found, fix=fix) from None


def _named(variable: str, default: str | Path) -> Path:
    return expanded(os.environ.get(variable) or default)
