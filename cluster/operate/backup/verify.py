"""``make backup-verify FROM=``: prove that a backup restores, in a scratch cluster.

Sums, then each file's own checks, then a cluster of all of them that must commit, then its ledger
against what was read when the backup was taken, and against what a run was told before that. The
original is not touched, and may run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from cluster.command import by_inventory, say
from cluster.config import inventory
from cluster.config.deployment import Deployment
from cluster.operate.backup import outcomes, repository, sets, told_of, turns
from cluster.operate.backup.outcomes import Verified
from cluster.operate.backup.scratch import Scratch, unpacked
from cluster.operate.backup.sets import Damaged, Manifest, PackedFile, StoredFile
from cluster.refusal import Failed, Refusal
from cluster.runtimes import of
from cluster.tigerbeetle import binary, data_file, totals

#: `inspect integrity` reads the whole file, and hangs for ever on some damage (seen on 0.17.9):
#: a minute, and what the slowest disk needs.
_INTEGRITY_TIMEOUT_S = 60.0
_INTEGRITY_BYTES_PER_S = 20 * 1024**2
_MENDING_STARTS = 3


@dataclass(frozen=True)
class Finding:
    """What a verification has found."""

    #: What is wrong with the backup; empty when it is whole.
    wrong: list[str]
    #: Seconds from its first byte to the restored cluster's first commit, on this machine.
    restore_s: float | None = None
    #: When the newest transfer in it was executed; None where there is none.
    newest_at: datetime | None = None

    @property
    def behind_s(self) -> float | None:
        """The age of the newest transfer in it, now."""
        return (datetime.now(UTC) - self.newest_at).total_seconds() if self.newest_at else None

    def verdict(self, name: str) -> Verified:
        """What is noted of it, now, for the backup of this name."""
        return Verified(
            name=name,
            at=datetime.now(UTC),
            passed=not self.wrong,
            restore_s=self.restore_s,
            behind_s=self.behind_s,
        )


def verify(original: Deployment, set_directory: Path, run: str | None = None) -> Finding:
    """Restore a backup into a scratch cluster and judge it, by a recorded ``run``, too.

    Raises Refusal for what is no backup of this cluster, and for a run that tells nothing of it;
    Damaged for one that cannot be opened; Failed when the scratch cluster does not start.
    """
    manifest = sets.read(set_directory)
    sets.refuse_foreign(manifest, original)
    if run is not None:
        told_of.refuse_untold(original, manifest, run)
    if manifest.is_stored:
        repository.check_set(original, manifest)
    began = time.monotonic()
    sets.check_files(set_directory, manifest, on_progress=say)
    say("unpacking into a scratch directory")
    with unpacked(original, set_directory, manifest) as scratch:
        restore_s = time.monotonic() - began
        for file in manifest.files:
            sets.identify(manifest, file, _superblock(scratch, file))
        damaged = _damaged(scratch, manifest)
        for complaint in damaged.values():
            say(complaint)
        say("starting a scratch cluster of it, on ports of its own")
        began = time.monotonic()
        scratch.start()
        restore_s += time.monotonic() - began
        say("reading its ledger")
        found = totals.read(scratch.deployment)
        missed = told_of.missed(original, manifest, run, scratch.deployment) if run else []
        scratch.stop()
        if damaged:
            # Stopped in the middle of a write, a replica may leave what it repairs at its start.
            say("checking again what was damaged: the cluster may have repaired it")
            _mend_superblocks(scratch, manifest)
            damaged = _damaged(scratch, manifest, only=set(damaged))
    wrong = [*damaged.values(), *_judge(manifest, found), *missed]
    return Finding(wrong, restore_s, totals.newest_at(found) if found else None)


def _judge(manifest: Manifest, found: totals.Totals | None) -> list[str]:
    if found is None:
        return [f"the ledger could not be read within {totals.TIMEOUT_S:g} s"]
    say(f"found {found}")
    wrong = totals.unbalanced(found)
    if manifest.before is None or manifest.after is None:
        say("the manifest has no totals: only debits = credits was checked")
    return wrong + totals.outside(found, manifest.before, manifest.after)


def _damaged(scratch: Scratch, manifest: Manifest, only: set[int] | None = None) -> dict[int, str]:
    """Replica index → what the server's own check says of its file, for those it finds fault with.

    The emulator has no such check: its file is summed entry by entry when it starts.
    """
    if scratch.engine == "emulator":
        return {}
    found = {}
    for file in manifest.files:
        if only is None or file.replica in only:
            say(f"inspecting the integrity of replica {file.replica}'s file")
            if complaint := _integrity(scratch, file):
                found[file.replica] = f"replica {file.replica}'s data file: {complaint}"
    return found


def _mend_superblocks(scratch: Scratch, manifest: Manifest) -> None:
    """Start and stop the scratch cluster until no stop has cut a superblock's write short.

    A server has no other way of ending, and every start repairs; twice in a row is rare.
    """
    for _ in range(_MENDING_STARTS):
        if not any(_superblock(scratch, file).is_torn for file in manifest.files):
            return
        scratch.start()
        scratch.stop()


def _integrity(scratch: Scratch, file: PackedFile | StoredFile) -> str:
    superblock = _superblock(scratch, file)
    if superblock.is_torn:
        # The inspection would repair it, in a file that it has opened for reading: it panics.
        agreed = f"{superblock.agreed} of {data_file.COPIES} copies agree"
        return f"its superblock was being written when the replica was stopped: {agreed}"
    # Before its first checkpoint a file has no grid block, and 0.17.9 divides by their number.
    options = [] if file.op_checkpoint else ["--skip-grid"]
    timeout_s = _INTEGRITY_TIMEOUT_S + file.data_size / _INTEGRITY_BYTES_PER_S
    try:
        server, path = _server_and_path(scratch, file)
        done = binary.inspect(server, path, "integrity", *options, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        return f"`inspect integrity` found no end within {timeout_s:.0f} s, as it does on damage"
    if done.returncode == 0:
        return ""
    last = [line for line in done.stderr.splitlines() if "stack trace" not in line][-1:]
    return f"`inspect integrity` failed: {last[0].strip() if last else 'no message'}"


def _superblock(scratch: Scratch, file: PackedFile | StoredFile) -> data_file.Superblock:
    try:
        return binary.superblock(*_server_and_path(scratch, file))
    except Refusal as error:
        raise Damaged(str(error)) from None


def _server_and_path(scratch: Scratch, file: PackedFile | StoredFile) -> tuple[list[str], str]:
    server = binary.command(scratch.deployment, scratch.environ)
    return server, of(scratch.deployment).data_file(file.replica)


def _report(finding: Finding, manifest: Manifest) -> None:
    """How fast it is restored, and how much would be lost with it."""
    if finding.restore_s is not None:
        size = f"{manifest.data_size / 1024**3:,.1f} GiB"
        say(f"time to restore (RTO): {finding.restore_s:,.1f} s on this machine, {size} of data")
    if finding.behind_s is not None and finding.newest_at:
        age, at = timedelta(seconds=round(finding.behind_s)), finding.newest_at
        say(f"newest transfer in it (RPO): {age} old, of {at:%Y-%m-%d %H:%M:%S} UTC")


@click.command()
@by_inventory
@click.option("--from", "source", help="Default: the cluster's newest backup.")
@click.option("--run", help="A run: what it was told before the backup must be in it.")
@click.option("--scheduled", is_flag=True, help="By a timer: nothing to do where one is under way.")
def main(file: str, source: str | None, run: str | None, *, scheduled: bool) -> int:
    """Prove that a backup restores, in a scratch cluster.

    Exit codes: 0 passed, 1 failed, 2 refused (not a backup, or nothing to verify it with).
    """
    original = inventory.read(file)
    found = repository.chosen(source, original)
    with turns.left_to_others(is_scheduled=scheduled), turns.verifying(original, found.name):
        return _judged(original, found, run)
    return 0


def _judged(original: Deployment, found: Path, run: str | None) -> int:
    """Verify, say what was found, and note it; the exit code."""
    print(f"verifying {found}")
    try:
        finding = verify(original, found, run)
        _report(finding, sets.read(found))
    except (Damaged, Failed) as error:
        finding = Finding([str(error)])
    for line in finding.wrong:
        print(f"  {line}", file=sys.stderr)
    print(f"backup: {'failed' if finding.wrong else 'passed'}: {original.whose}")
    outcomes.note_verified(original, finding.verdict(found.name))
    return 1 if finding.wrong else 0
