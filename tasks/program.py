"""The server program on servers: shipped from this machine, under a name of its content."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.operations import files

from cluster.runtimes import layout, program
from tasks.support.here import deployment_here, guarded
from tasks.support.observed import observed, replica_index


@deploy("Check the server program")
def check() -> None:
    """This machine has it, in the configured release, for the server's kind of processor."""
    deployment = deployment_here()
    with guarded():
        found = program.to_ship(deployment)
    machine = observed(deployment)[replica_index()].machine
    if found.machine not in ("", machine):
        raise DeployError(
            f"replica {replica_index()}'s server: expected {found.machine}, which {found.path} is "
            f"for, found {machine}. Fix: name the program for {machine} in TIGERBEETLE_BIN"
        )


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
    )
    files.link(name="Call it the newest", path=layout.PROGRAM_LINK, target=str(target))
