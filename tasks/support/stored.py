"""The backups' repository, opened from the current task's host: see `cluster.operate.backup`."""

from __future__ import annotations

from pyinfra import host

from cluster.operate.backup import repository, restic
from tasks.support.act import call, run_now
from tasks.support.here import deployment_here, is_server

#: pyinfra's own bound for one operation: the line to a repository may be slow.
LONG_S = 6 * 3600


def repository_id() -> str:
    """That of the repository that the set goes to, or comes from; empty for none."""
    return str(host.data.get("repository") or "")


def reach() -> None:
    """See that this host has the repository at that address, and may write to it."""
    call("Reach the repository", run, script=restic.probe(repository_id()))


def unlock() -> None:
    """Take the locks of what was ended on this host: while they are there, nothing is pruned."""
    if repository_id() and is_server():
        call("Let go of the repository", run, script="restic unlock || :")


def run(script: str) -> str:
    """Run what opens the repository on this host, now; what it prints. Raises Refusal."""
    deployment = deployment_here()
    given = repository.settings(deployment)
    done, output = run_now(restic.told(script), _stdin=given, _timeout=LONG_S)
    if not done:
        raise repository.refused(deployment, output.stderr)
    return output.stdout
