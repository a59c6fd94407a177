"""What a run of load was told of before a backup was taken, and whether the backup has it.

The proof reads the ledger through the official client, which aborts its process on a protocol
error, and so it runs in a process of its own: ``make audit``'s, for a copy.
"""

from __future__ import annotations

import subprocess
import sys

from cluster import REPOSITORY
from cluster.command import say
from cluster.config.deployment import Deployment
from cluster.operate.backup.sets import Manifest
from cluster.refusal import Refusal, last_line

#: It reads all transfers of the run: some 100,000 in a second.
_TIMEOUT_S = 6 * 3600.0
#: The exit codes of an audit that did not pass.
_CONVICTED, _UNDECIDED = 1, 4


def refuse_untold(original: Deployment, manifest: Manifest, run: str) -> None:
    """Say how much the run was told of before the backup.

    Raises Refusal for a run that is none, is another cluster's, or was told of nothing before.
    """
    say(last_line(_audited(original, manifest, run).stdout))


def missed(original: Deployment, manifest: Manifest, run: str, restored: Deployment) -> list[str]:
    """One line for a restored cluster that lacks something the run was told of; else none.

    Raises Refusal for a run whose record is not whole, where what there is of it is in the backup.
    """
    say(f"looking for what run {run} was told of")
    try:
        done = _audited(original, manifest, run, f"--copy={restored.client_addresses}")
    except subprocess.TimeoutExpired:
        return [f"run {run}: not proven within {_TIMEOUT_S:g} s"]
    for line in done.stdout.splitlines()[:-1]:
        say(line.strip())
    if done.returncode == 0:
        return []
    if done.returncode == _CONVICTED:
        return [last_line(done.stdout)]
    if done.returncode == _UNDECIDED:
        fix = "name a run that has ended properly, or leave RUN out"
        raise Refusal("RUN", expected="its whole record", found=last_line(done.stdout), fix=fix)
    return [f"run {run}: the proof ended with {done.returncode}: {last_line(done.stderr)}"]


def _audited(
    original: Deployment, manifest: Manifest, run: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """Raises Refusal with its words, where it refuses."""
    words = [f"--inventory={original.inventory}", f"--run={run}"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cluster", "audit", *words, *more),
            f"--taken-at={manifest.taken_at.isoformat()}",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode == Refusal.exit_code:
        raise Refusal(last_line(done.stderr).removeprefix("error: "))
    return done
