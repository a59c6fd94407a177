"""Which backups are kept: ``KEEP=7``, or ``KEEP="daily=7 weekly=5 monthly=12"``. Pure.

``daily=7`` keeps the newest backup of each of the newest seven days that have one; what one word
keeps, no other drops. So does restic's ``forget``. Days are UTC's, weeks begin on Monday.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from cluster.refusal import Refusal

#: How a backup is named: when it was taken, in UTC.
NAME_FORMAT = "%Y%m%dT%H%M%SZ"
#: Word → what all backups of one period have in common.
_PERIODS = {
    "last": NAME_FORMAT,
    "hourly": "%Y%m%dT%H",
    "daily": "%Y%m%d",
    "weekly": "%G-W%V",
    "monthly": "%Y%m",
    "yearly": "%Y",
}


class Policy(BaseModel, frozen=True):
    """For how many periods of each kind a backup is kept."""

    last: int = Field(default=0, ge=0)
    hourly: int = Field(default=0, ge=0)
    daily: int = Field(default=0, ge=0)
    weekly: int = Field(default=0, ge=0)
    monthly: int = Field(default=0, ge=0)
    yearly: int = Field(default=0, ge=0)

    def __str__(self) -> str:
        """As it is typed behind ``KEEP=``."""
        return " ".join(f"{word}={count}" for word, count in self if count)


#: Without KEEP.
DEFAULT = Policy(last=7)


def parse(text: str) -> Policy:
    """A number of backups, or words with numbers. Raises Refusal, also for what keeps none."""
    words = text.replace(",", " ").split()
    if len(words) == 1 and "=" not in text:
        words = [f"last={words[0]}"]
    counts = {word: count for word, _, count in (each.partition("=") for each in words)}
    is_clear = len(counts) == len(words) and counts.keys() <= _PERIODS.keys()
    if not is_clear or not all(re.fullmatch("[0-9]{1,6}", each) for each in counts.values()):
        raise _refusal(text)
    policy = Policy.model_validate(counts)
    if policy == Policy():
        raise _refusal(text)
    return policy


def expired(policy: Policy, names: Iterable[str]) -> list[str]:
    """The backups to let go, oldest first, by their names; never the newest."""
    oldest_first = sorted(set(names))
    kept = set(oldest_first[-1:])
    for word, count in policy:
        newest = {_period(word, name): name for name in oldest_first}
        kept.update(sorted(newest.values(), reverse=True)[:count])
    return [name for name in oldest_first if name not in kept]


def _period(word: str, name: str) -> str:
    at = datetime.strptime(name, NAME_FORMAT).replace(tzinfo=UTC)
    return at.strftime(_PERIODS[word])


def _refusal(found: str) -> Refusal:
    return Refusal(
        "KEEP",
        expected=f"how many backups to keep, 1 or more, or numbers for {', '.join(_PERIODS)}",
        found=found or "nothing",
        fix=f'leave it out for {DEFAULT.last}, or say as in KEEP="daily=7 weekly=5 monthly=12"',
    )
