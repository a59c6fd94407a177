"""Data files: formatted once, when the cluster has never existed; never touched again."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from cluster.checks import existence, facts, rules
from cluster.checks.observe import observe
from cluster.config.deployment import Deployment
from cluster.runtimes import of
from tasks.support.act import call, call_once, shell
from tasks.support.here import deployment_here, guarded, indexes_here, is_bootstrap
from tasks.support.observed import observed


@deploy("Format the data files of a new cluster")
def format_once() -> None:
    """Format each replica's file, only if none exists; decided from what all of them hold."""
    deployment, indexes = deployment_here(), indexes_here()
    runtime, seen = of(deployment), observed(deployment)
    with guarded():
        what = facts.plan(deployment, seen, is_asked_for=is_bootstrap())
        missing = [] if runtime.HIDES_FILES else [i for i in indexes if not seen[i].data_files]
        commands = {index: runtime.format(index) for index in missing}
    markers = sorted({runtime.bootstrap_marker(index) for index in indexes} - {""})
    if what == "keep":
        host.noop("data files: all there, and of this cluster")
    elif runtime.HIDES_FILES:
        call(
            "Format the data files", _format_all, deployment=deployment, is_asked_for=is_bootstrap()
        )
    else:
        shell("Make the data files' places", *map(runtime.prepare, indexes))
        for marker in markers:
            files.file(name="Note that no replica has started yet", path=marker, mode="600")
    for index, lines in commands.items():
        shell(f"Format replica {index}'s data file", *lines)
    for marker in markers:
        files.file(name="Note that every replica has its data file", path=marker, present=False)
    if not existence.is_noted(deployment):
        note = "Note that the cluster exists, apart from its data"
        call_once(note, existence.note, deployment=deployment)


def _format_all(deployment: Deployment, *, is_asked_for: bool) -> None:
    runtime = of(deployment)
    with guarded():
        # Again: on a new machine there is an image to try it with only now.
        seen = observe(deployment)
        rules.check(deployment, seen, only=("memlock",))
        if facts.plan(deployment, seen, is_asked_for=is_asked_for) == "format":
            runtime.format_all()  # else a new release: only its image was missing
