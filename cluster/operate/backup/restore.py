"""``make restore FROM=``: every replica's data file from one backup, all or nothing.

A restore is a rollback: what was acknowledged after the backup is gone, for every replica alike.
The files that are there are kept until the restored cluster commits; if it does not, they are put
back, and everything is as it was before. Servers may be new, bare ones: they are checked and made
ready first, as for a deploy, before any data file is touched.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from cluster import command, config
from cluster.checks import facts
from cluster.checks.observe import observe
from cluster.command import by_inventory, confirm
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.interruption import say, whole
from cluster.operate import last_word, phase
from cluster.operate.backup import rehearsal, repository, sets, take, turns
from cluster.operate.backup.sets import Manifest
from cluster.refusal import Failed, Refusal, begun
from cluster.runtimes import tunnel
from cluster.tigerbeetle import totals

_AS_BEFORE = "; the data files are as they were"


def restore(
    inventory_file: str, deployment: Deployment, source: Path, original: Deployment | None = None
) -> None:
    """Restore, start, and return when the cluster commits.

    With an ``original``, its backup makes a copy of it for a rehearsal, which it must not reach.
    Raises Refusal before anything is touched, Failed after it, whose text says how things are.
    """
    manifest, owner = sets.read(source), deployment
    if original:
        rehearsal.refuse_within_reach(original, deployment)
        sets.refuse_foreign(manifest, original)
        owner = deployment.model_copy(update={"name": original.name})
    sets.refuse_foreign(manifest, owner)
    if take.is_running(deployment):
        raise Refusal(
            "restore: expected a stopped cluster, found a replica that runs. "
            f"Fix: make down {deployment.named}, and stop its clients"
        )
    data = {"backup_set": str(source)}
    if manifest.is_stored:
        data["repository"] = repository.check_set(owner, manifest)
    sets.check_files(source, manifest, on_progress=command.say)
    known = manifest.name if manifest.is_stored else config.shown(source)
    print(describe(manifest, known, deployment))
    fix = "CONFIRM=yes, if that is what you want; nothing was touched"
    confirm("restore", since="a restore takes back what came after the backup", fix=fix)
    began = time.monotonic()
    again = f"make restore {deployment.named} FROM={shlex.quote(known)}"
    if original:
        again += f" COPY_OF={shlex.quote(original.file)}"
    with contextlib.ExitStack() as held:
        held.enter_context(take.locked(deployment))
        if original:  # it may not let its backup go meanwhile
            held.enter_context(turns.verifying(original, manifest.name))
        with last_word.said(deployment, _AS_BEFORE, fix=again):
            _make_ready(inventory_file, data)
            with begun():
                seen = observe(deployment)
                is_half = facts.half_restored(deployment, seen)
                is_new = bool(facts.missing(deployment, seen))
        with last_word.said(deployment, _AS_BEFORE, fix=again if is_new else ""):
            if is_half:
                command.say("a restore was cut off between its renames; putting the old files back")
                _undo(inventory_file, data, again)
            _replace(inventory_file, data, again)
        with last_word.said(deployment, "; the data files are those of the backup"):
            phase.run(inventory_file, "tasks.backup.accept", data=data)
    _report(deployment, manifest, time.monotonic() - began)


def describe(manifest: Manifest, source: str, deployment: Deployment) -> str:
    """What a person confirms: where the cluster goes back to, and what that means. Pure."""
    taken = manifest.taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    checkpoint = max(file.op_checkpoint for file in manifest.files)
    lines = [
        f"restore {manifest.whose} from {source}",
        f"  taken at {taken}, release {manifest.release}, checkpoint at operation {checkpoint}",
    ]
    if manifest.before:
        lines.append(f"  {manifest.before}; last transfer {_when(manifest.before)}")
    if manifest.deployment != deployment.name:
        places = config.addresses(deployment.listed)
        lines += [
            f"  INTO A COPY, for a rehearsal: {deployment.whose} at {places}",
            f"  {manifest.deployment}'s clients cannot tell it from theirs: let none of them reach "
            "it. What the copy holds now will be gone.",
        ]
    else:
        lines += [
            f"  ROLLED BACK: everything acknowledged after {taken} will be gone",
            "  Clients that are connected now must be restarted: they remember what is gone.",
        ]
    return "\n".join(lines)


def _make_ready(inventory_file: str, data: Mapping[str, str]) -> None:
    """Check and prepare the machines, which may be new ones. Raises Refusal for the checks."""
    try:
        phase.run(inventory_file, "tasks.backup.make_ready", data=data)
    except phase.Refused as refused:
        raise Refusal(str(refused)) from None


def _replace(inventory_file: str, data: Mapping[str, str], again: str) -> None:
    """Unpack, rename, start. Whatever fails, the data files are as they were."""
    started = renamed = False
    try:
        phase.run(inventory_file, "tasks.backup.unpack", data=data)
        renamed = True
        phase.run(inventory_file, "tasks.backup.swap", data=data)
        started = True
        phase.run(inventory_file, "deploy.py")
    except BaseException:  # Ctrl-C too
        if not renamed:  # nor is anything renamed back: that may be an earlier restore's
            with whole("removing what was unpacked"), contextlib.suppress(Failed):
                say("the restore failed; removing what was unpacked")
                phase.run(inventory_file, "tasks.backup.discard", data=data, quiet=True)
            raise
        with whole("putting the old data files back"):
            say("the restore failed; putting the old data files back")
            _undo(inventory_file, data, again, started=started)
        raise


def _undo(
    inventory_file: str, data: Mapping[str, str], again: str, *, started: bool = False
) -> None:
    try:
        if started:
            phase.run(inventory_file, "tasks.replica.stop", quiet=True)
        phase.run(inventory_file, "tasks.backup.undo", data=data, quiet=True)
    except Failed as failed:
        fix = f"mend what it names, then again: {again}"
        told = Refusal("the old data files", expected="back", found=str(failed), fix=fix)
        raise last_word.AsTold(str(told)) from None


def _report(deployment: Deployment, manifest: Manifest, seconds: float) -> None:
    """What the cluster holds now, beside what was read when the backup was taken."""
    found = totals.read(deployment)
    print(f"restored: {deployment.whose} commits, {seconds:,.1f} s after the confirmation")
    if found is None:
        look = f"make status {deployment.named}"
        print(f"  its ledger was not read within {totals.TIMEOUT_S:g} s: look with {look}")
        return
    print(f"  {found}; last transfer {_when(found)}")
    for line in totals.outside(found, manifest.before, None):
        print(f"  {line}")
    if manifest.deployment == deployment.name:
        print("  Restart every client now. Transfers after the backup have to be made again.")


def _when(found: totals.Totals) -> str:
    newest = max(found.ledgers.values(), key=lambda each: each.last_transfer_ns, default=None)
    if newest is None or not newest.last_transfer_ns:
        return "none"
    at = datetime.fromtimestamp(newest.last_transfer_ns / 1e9, UTC)
    return f"{newest.last_transfer_id} at {at:%Y-%m-%d %H:%M:%S.%f} UTC"


@click.command()
@by_inventory
@click.option("--from", "source", required=True, help="A backup's directory or name.")
@click.option("--copy-of", help="The inventory whose backup it is, for a rehearsal elsewhere.")
def main(file: str, source: str, copy_of: str | None) -> None:
    """Put all data files back from a backup, all or nothing.

    Exit codes: 0 restored, 1 failed (mostly all as before; the last line says how things are),
    2 refused (nothing was touched).
    """
    deployment = tunnel.reached(inventory.read(file))
    original = inventory.read(copy_of) if copy_of else None
    found = repository.chosen(source or None, original or deployment)
    restore(file, deployment, found, original)
