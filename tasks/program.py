"""The server program, brought to where it runs: a file, or our image."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra.api import deploy
from pyinfra.operations import files

from cluster.runtimes import layout, program
from tasks import image
from tasks.support.here import deployment_here, guarded


@deploy("Bring the server program")
def bring() -> None:
    """Have it where the replicas run, in the configured release; nothing to do for a process."""
    ways = {"compose": image.build, "docker": image.bring, "systemd": ship}
    if way := ways.get(deployment_here().runtime):
        way()


@deploy("Ship the server program")
def ship() -> None:
    """Install it beside the ones that were shipped before: none that runs is replaced."""
    deployment = deployment_here()
    with guarded():
        found = program.to_ship(deployment)
    target = PurePosixPath(layout.program(deployment, found.sha256))
    files.directory(name="Have a directory for this program", path=str(target.parent), mode="755")
    files.put(
        name=f"Ship {deployment.label} {deployment.cluster.release}",
        src=str(found.path),
        dest=str(target),
        mode="755",
        create_remote_dir=False,
    )
    files.link(name="Call it the newest", path=layout.PROGRAM_LINK, target=str(target))
