"""Whose turn it is: one backup or restore of a deployment at a time, and one verification.

The kernel holds the locks: whoever is killed leaves none.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.config import kept
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal


class Busy(Refusal):
    """Somebody else's turn has not ended."""


@contextmanager
def alone(lock: Path, what: str, whose: object) -> Iterator[None]:
    """Hold the lock of ``what`` is done one at a time, such as backups. Raises Busy."""
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found, fix = "one under way", "wait for its end"
            raise Busy(str(whose), expected=f"no other {what}", found=found, fix=fix) from None
        yield


@contextmanager
def verifying(deployment: Deployment, name: str) -> Iterator[None]:
    """Hold the turn of verifying backups, now of this one, which nobody removes. Raises Busy."""
    lock = _lock(deployment)
    with alone(lock, "verification", deployment.whose):
        lock.write_text(name)
        yield


def verified_now(deployment: Deployment) -> str:
    """The name of the backup that is being verified; empty when there is none."""
    try:
        with alone(_lock(deployment), "verification", deployment.whose):
            return ""
    except Busy:
        return _lock(deployment).read_text() or "one"
    except OSError:
        return ""  # who cannot have the turn here does not verify here


@contextmanager
def left_to_others(*, is_scheduled: bool) -> Iterator[None]:
    """A timer's run leaves its work to whoever is at it: one line, and no failure."""
    try:
        yield
    except Busy as busy:
        if not is_scheduled:
            raise
        print(f"{busy.what}: another run is under way; this one leaves it to that one")


def _lock(deployment: Deployment) -> Path:
    return kept.records() / deployment.name / "backups" / "verifying"
