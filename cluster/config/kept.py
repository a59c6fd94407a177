"""Where the repository keeps what outlives a cluster's data files. None of it is on their disk."""

from __future__ import annotations

import os
import tempfile
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


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """The whole file with this mode, or none of it, whoever else writes it at the same time."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
        return Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _named(variable: str, default: str | Path) -> Path:
    return expanded(os.environ.get(variable) or default)
