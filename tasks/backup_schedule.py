"""Backups by systemd timers on the machine that operates the cluster, and proofs of them.

Typed once, as root: ``pyinfra --data inventory=INVENTORY @local tasks.backup_schedule.install``.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files, systemd

from cluster.config import inventory as inventories
from cluster.config.deployment import Deployment
from cluster.operate.backup import outcomes, retention, schedule
from cluster.operate.backup.outcomes import Expected
from cluster.operate.backup.schedule import Timer
from tasks.support.act import call, shell
from tasks.support.here import guarded
from tasks.support.observed import is_outdated

UNITS = Path("/etc/systemd/system")


@deploy("Back up by a timer")
def install() -> None:
    """Write and start the timers.

    ``--data at=`` (OnCalendar) and ``keep=`` change the backups' settings; ``verify=`` says when
    the newest one is proven, or ``no``. Who backs up more often than twice a day has no replica
    stopped for it: where files cannot be cloned, each backup is refused.
    """
    deployment, at = _deployment(), host.data.get("at") or schedule.NIGHTLY
    verify = host.data.get("verify") or schedule.WEEKLY
    is_proven = verify not in ("no", False)
    with guarded():
        keep = retention.parse(str(host.data.get("keep", retention.DEFAULT)))
        interval = schedule.interval_s(at)
        proofs = schedule.interval_s(verify, "verify") if is_proven else None
    wanted = Expected(
        since=datetime.now(UTC),
        backup_s=schedule.late_after_s(interval),
        verify_s=proofs and schedule.late_after_s(proofs),
    )
    timers = schedule.timers(
        deployment.name,
        host.data.inventory,
        at=at,
        keep=keep,
        verify=str(verify),
        never_stops=interval < schedule.OFTEN_S,
    )
    for timer, is_wanted in zip(timers, (True, is_proven), strict=True):
        if is_wanted:
            _start(timer)
        else:
            _remove(timer)
    before = outcomes.read(deployment, Expected)
    if before is None or before.model_copy(update={"since": wanted.since}) != wanted:
        call("Note when one is late", outcomes.note, deployment=deployment, outcome=wanted)


@deploy("No longer back up by a timer")
def remove() -> None:
    """Stop and remove the timers; the backups stay."""
    deployment = _deployment()
    for timer in schedule.timers(deployment.name, host.data.inventory):
        _remove(timer)
    if outcomes.read(deployment, Expected):
        call("Expect none", outcomes.expect_nothing, deployment=deployment)


def _start(timer: Timer) -> None:
    written = [
        files.put(name=f"Write {unit}", src=StringIO(text), dest=str(UNITS / unit), mode="644")
        for unit, text in timer.units(host.data.inventory, os.environ).items()
    ]
    is_unread = is_outdated(*timer.files)
    systemd.service(
        name=f"Start {timer.name}.timer",
        service=f"{timer.name}.timer",
        running=True,
        enabled=True,
        daemon_reload=is_unread or any(each.will_change for each in written),
    )


def _remove(timer: Timer) -> None:
    if not (UNITS / f"{timer.name}.timer").exists():
        host.noop(f"no {timer.name}.timer is installed")
        return
    shell(f"Stop {timer.name}.timer", f"systemctl disable --now {timer.name}.timer")
    for unit in timer.files:
        files.file(name=f"Remove {unit}", path=str(UNITS / unit), present=False)


def _deployment() -> Deployment:
    """Whose timers. Raises DeployError without an inventory that loads, without systemd, and where
    they are another inventory's.
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
    for timer in schedule.timers(deployment.name, named):
        unit = UNITS / timer.files[0]
        if unit.exists() and (other := schedule.rival(unit.read_text(), deployment.inventory)):
            raise DeployError(
                f"{timer.name}: expected the timer of {deployment.inventory}, found that of "
                f"{other}. Fix: give one of them another deployment name; or, if that one is no "
                f"longer meant: systemctl disable --now {timer.name}.timer && rm {unit}"
            )
    return deployment
