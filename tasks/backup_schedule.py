"""A backup every night, by a systemd timer on the machine that operates the cluster.

Typed once, as root: ``pyinfra --data inventory=INVENTORY @local tasks.backup_schedule.install``. A
backup stops all replicas together, so it is driven from one machine, wherever they run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files, systemd

from cluster import REPOSITORY
from cluster.config import inventory as inventories
from cluster.operate.backup import take
from tasks.support.act import shell
from tasks.support.here import guarded
from tasks.support.observed import is_outdated

#: systemd's OnCalendar.
NIGHTLY = "*-*-* 02:00:00"
UNITS = Path("/etc/systemd/system")
_TEMPLATES = REPOSITORY / "files" / "backup"
_KINDS = ("service", "timer")


@deploy("Back up every night")
def install() -> None:
    """Write and start the timer; ``--data at=`` (OnCalendar) and ``keep=`` change its settings."""
    name = _name()
    written = [
        files.template(
            name=f"Write {name}.{kind}",
            src=str(_TEMPLATES / f"backup.{kind}.j2"),
            dest=str(UNITS / f"{name}.{kind}"),
            mode="644",
            inventory=host.data.inventory,
            repository=str(REPOSITORY),
            backup_dir=os.environ.get("BACKUP_DIR", ""),
            calendar=host.data.get("at") or NIGHTLY,
            keep=int(host.data.get("keep") or take.KEEP),
        )
        for kind in _KINDS
    ]
    is_unread = is_outdated(*(f"{name}.{kind}" for kind in _KINDS))
    systemd.service(
        name="Start the timer",
        service=f"{name}.timer",
        running=True,
        enabled=True,
        daemon_reload=is_unread or any(each.will_change for each in written),
    )


@deploy("No longer back up every night")
def remove() -> None:
    """Stop and remove the timer; the backups stay."""
    name = _name()
    if not (UNITS / f"{name}.timer").exists():
        host.noop("no timer is installed")
        return
    shell("Stop the timer", f"systemctl disable --now {name}.timer")
    for kind in _KINDS:
        files.file(name=f"Remove {name}.{kind}", path=str(UNITS / f"{name}.{kind}"), present=False)


def _name() -> str:
    """The units' name. Raises DeployError without an inventory that loads, without systemd, and
    where they are another inventory's.
    """
    named = host.data.get("inventory")
    if not named:
        raise DeployError(
            "inventory: expected --data inventory=INVENTORY, found nothing. "
            "Fix: name the inventory to back up"
        )
    with guarded():
        deployment = inventories.read(named)
    if not os.access(UNITS, os.W_OK):
        raise DeployError(
            f"backup_schedule: expected {UNITS} to be there and writable, found it is not. "
            "Fix: run it as root where systemd is; elsewhere use cron, see docs/backup.md"
        )
    name = f"tigerbeetle-backup-{deployment.name}"
    unit = UNITS / f"{name}.service"
    if unit.exists() and (other := rival(unit.read_text(), deployment.inventory)):
        raise DeployError(
            f"{name}: expected the timer of {deployment.inventory}, found that of {other}. Fix: "
            "give one of them another deployment name; or, if that one is no longer meant: "
            f"systemctl disable --now {name}.timer && rm {unit}"
        )
    return name


def rival(unit: str, inventory: Path) -> Path | None:
    """The other inventory that a written service backs up, if it is still there."""
    found = re.search(
        r"^WorkingDirectory=(?P<at>.*)$(?s:.*?)^ExecStart=.* \"?INVENTORY=(?P<file>.*?)\"? KEEP=",
        unit,
        re.MULTILINE,
    )
    if not found:
        return None
    at, file = (found[name].replace("%%", "%").replace("$$", "$") for name in ("at", "file"))
    other = Path(at, file).resolve()
    return other if other.is_file() and other != inventory.resolve() else None
