"""What has become of a cluster's backups: the newest, the last verification, what timers owe.

    .clusters/DEPLOYMENT/backups/ENGINE-ID-{taken,verified,expected}.json

Not where the backups are, which may be far away or lost. The monitoring is told the same, in
metrics (``cluster.health.textfile``): so they survive whatever starts anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field

from cluster.config import kept
from cluster.config.deployment import Deployment
from cluster.health import textfile
from cluster.refusal import Refusal, refusal_of

METRIC = "wallet_service_backup_"


class Taken(BaseModel, frozen=True):
    """The newest backup."""

    name: str
    at: datetime = Field(description="the moment that its data is of")


class Verified(BaseModel, frozen=True):
    """The last verification that has come to a verdict."""

    name: str = Field(description="the backup's")
    at: datetime = Field(description="when the verdict was found")
    passed: bool
    #: When one has passed last.
    passed_at: datetime | None = None
    #: Seconds from the first byte until the restored cluster has committed.
    restore_s: float | None = None
    #: The age of the newest transfer in it, in seconds, at ``at``.
    behind_s: float | None = None


class Expected(BaseModel, frozen=True):
    """What timers on this machine are to do, and since when."""

    since: datetime
    backup_s: float = Field(description="a newest backup of more seconds is late")
    verify_s: float | None = Field(description="the same of verifications; null: no timer for it")


Outcome = TypeVar("Outcome", Taken, Verified, Expected)


def read(deployment: Deployment, kind: type[Outcome]) -> Outcome | None:
    """What is known here; what cannot be read is not known."""
    try:
        return kind.model_validate_json(_file(deployment, kind).read_text())
    except (OSError, ValueError):
        return None


def note(deployment: Deployment, outcome: Taken | Verified | Expected) -> None:
    """Write it down and tell the monitoring. No backup fails for want of it: that is said."""
    file = _file(deployment, type(outcome))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept.write(file, f"{outcome.model_dump_json(indent=1)}\n".encode())
    except OSError as error:
        _say(f"not noted: {refusal_of(error)}")
    tell(deployment)


def note_verified(deployment: Deployment, found: Verified) -> None:
    """The same for a verdict, with what an earlier one has proven."""
    before = read(deployment, Verified)
    passed_at = found.at if found.passed else before and before.passed_at
    note(deployment, found.model_copy(update={"passed_at": passed_at}))


def expect_nothing(deployment: Deployment) -> None:
    """The timers are gone. Raises OSError."""
    _file(deployment, Expected).unlink(missing_ok=True)
    tell(deployment)


def tell(deployment: Deployment) -> None:
    """Tell the monitoring all that is known here; where it cannot be told, that is said."""
    try:
        textfile.publish(deployment, metrics(deployment))
    except Refusal as refusal:
        _say(f"not told to the monitoring: {refusal}")


def metrics(deployment: Deployment) -> str:
    """All that is known here, as Prometheus reads it."""
    labels = f'cluster="{deployment.cluster.id:032x}",operator="{textfile.writer()}"'
    lines = []
    taken, verified = read(deployment, Taken), read(deployment, Verified)
    for name, value in values(taken, verified, read(deployment, Expected)):
        lines += [f"# TYPE {METRIC}{name} gauge", f"{METRIC}{name}{{{labels}}} {value:.3f}"]
    return "".join(f"{line}\n" for line in lines)


def values(
    taken: Taken | None, verified: Verified | None, expected: Expected | None
) -> Iterator[tuple[str, float]]:
    """Each metric's name, without its prefix, and value. Pure."""
    if taken:
        yield "last_success_timestamp_seconds", taken.at.timestamp()
    if verified:
        if verified.passed_at:
            yield "verify_last_success_timestamp_seconds", verified.passed_at.timestamp()
        if not verified.passed:
            yield "verify_last_failure_timestamp_seconds", verified.at.timestamp()
        if verified.restore_s is not None:
            yield "verify_restore_seconds", verified.restore_s
        if verified.behind_s is not None:
            yield "verify_newest_transfer_age_seconds", verified.behind_s
    if expected:
        yield "timer_since_timestamp_seconds", expected.since.timestamp()
        yield "late_after_seconds", expected.backup_s
        if expected.verify_s is not None:
            yield "verify_late_after_seconds", expected.verify_s


def _file(deployment: Deployment, kind: type[BaseModel]) -> Path:
    cluster = f"{deployment.engine}-{deployment.cluster.id}"
    return kept.records() / deployment.name / "backups" / f"{cluster}-{kind.__name__.lower()}.json"


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr)
