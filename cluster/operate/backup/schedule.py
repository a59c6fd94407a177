"""The timers of a cluster's backups: what they run and when, and from when on that is late.

A backup is of all replicas, so one machine drives it, wherever they run.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from cluster import REPOSITORY
from cluster.operate.backup.retention import DEFAULT, Policy
from cluster.refusal import Refusal
from cluster.runtimes.base import rendered

#: systemd's OnCalendar.
NIGHTLY, WEEKLY = "*-*-* 02:00:00", "Sun *-*-* 04:00:00"
#: What may say where things are, beside the env file: a timer's runs find them there, too.
CARRIED = ("BACKUP_DIR", "BACKUP_TO", "BACKUP_PASSWORD_FILE", "RECORDS_DIR", "TMPDIR")

_TEMPLATES = REPOSITORY / "files" / "backup"
_KINDS = ("service", "timer")
#: The longest time between two runs is looked for among so many: a month of nights.
_RUNS = 32
#: Whoever backs up more often than this does not want the cluster to stop for it.
OFTEN_S = 12 * 3600
_TIMEOUT_S = 30


class Timer(NamedTuple):
    """A timer and the service that it starts, which runs what a person types."""

    name: str
    what: str
    calendar: str
    command: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its units."""
        return tuple(f"{self.name}.{kind}" for kind in _KINDS)

    def units(self, inventory: str, environ: Mapping[str, str]) -> dict[str, str]:
        """File name → content. Pure."""
        carried = [f"{name}={environ[name]}" for name in CARRIED if environ.get(name)]
        values = {
            "what": f"{self.what} of the TigerBeetle cluster of {inventory}".replace("%", "%%"),
            "inventory": inventory,
            "repository": str(REPOSITORY).replace("%", "%%"),
            "environment": map(_quoted, carried),
            "command": " ".join(_quoted(word).replace("$", "$$") for word in self.command),
            "calendar": self.calendar,
        }
        texts = [(_TEMPLATES / f"backup.{kind}.j2").read_text() for kind in _KINDS]
        made = (rendered(text, values, trim_blocks=True) for text in texts)
        return dict(zip(self.files, made, strict=True))


def timers(
    deployment: str,
    inventory: str,
    *,
    at: str = NIGHTLY,
    keep: Policy = DEFAULT,
    verify: str = WEEKLY,
    never_stops: bool = False,
) -> tuple[Timer, Timer]:
    """Who takes the backups, and who has the newest one proven; ``at`` and ``verify`` say when."""
    taking: tuple[str, ...] = (
        "make",
        "backup",
        "INVENTORY=" + inventory,
        f"KEEP={keep}",
        "SCHEDULED=yes",
    )
    proving = ("make", "backup-verify", "INVENTORY=" + inventory, "SCHEDULED=yes")
    if never_stops:
        taking = (*taking, "WAY=freeze")
    return (
        Timer(f"tigerbeetle-backup-{deployment}", "Backup", at, taking),
        Timer(f"tigerbeetle-verify-{deployment}", "Proof of a backup", verify, proving),
    )


def interval_s(calendar: str, setting: str = "at") -> float:
    """The longest time between two runs. Raises Refusal for what does not repeat."""
    ahead = [datetime.fromisoformat(at) for at in _ahead(calendar)]
    if len(ahead) < 2:
        raise Refusal(
            setting,
            expected="times that repeat, as systemd's OnCalendar says them",
            found=calendar,
            fix="try it first: systemd-analyze calendar '*-*-* 02:00'",
        )
    return max((later - sooner).total_seconds() for sooner, later in pairwise(ahead))


def late_after_s(interval: float) -> float:
    """After how long without a success one is late, of those that come after ``interval`` s."""
    return 1.25 * interval + 900


def _ahead(calendar: str) -> list[str]:
    """The next runs; none for what systemd does not understand."""
    command = ["systemd-analyze", "calendar", f"--iterations={_RUNS}", "--", calendar]
    environ = os.environ | {"TZ": "UTC", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=environ, text=True, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        fix = "elsewhere use cron, see docs/backup.md"
        raise Refusal("timer", expected="systemd here", found="none", fix=fix) from None
    return re.findall(r"^ *(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC$", done.stdout, re.M)


def rival(unit: str, inventory: Path) -> Path | None:
    """The other inventory that a written service is for, if it is still there."""
    at = re.search(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
    file = re.search(
        r'^ExecStart=.* "?INVENTORY=(.*?)"?(?: "?(?:KEEP|SCHEDULED|WAY)=.*)?$', unit, re.MULTILINE
    )
    if not at or not file:
        return None
    written = (found[1].replace("%%", "%").replace("$$", "$") for found in (at, file))
    other = Path(*written).resolve()
    return other if other.is_file() and other != inventory.resolve() else None


def _quoted(word: str) -> str:
    """One word of a unit's line, in which a per cent sign would be a specifier."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
