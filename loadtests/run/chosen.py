"""Which run a command means: the one that is named, else the newest of the inventory's cluster.

A run is of one cluster, and so is what is said of it: where a person has named an inventory, the
run of another cluster is refused. Without one, a run that is named says itself whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.refusal import Refusal
from loadtests.run import history, runs, target
from loadtests.run.result import Target, read_manifest, read_target


@dataclass(frozen=True)
class Kind:
    """What a run has written, how that names its cluster, and the target that makes one."""

    file: str
    target: Callable[[Path], Target | None]
    made_by: str


LOAD = Kind(runs.MANIFEST, lambda run: read_manifest(run).target, "load")
RECORDED = Kind(history.FILE, read_target, "workload")


def run(name: str | None, inventory: str | None, kind: Kind = LOAD) -> Path:
    """The directory of the run. Raises Refusal for one of another cluster, and for none."""
    if name:
        found = runs.find(name, kind.file)
        if inventory:
            refuse_foreign(found.name, kind.target(found), target.of_inventory(inventory))
        return found
    wanted = target.of_inventory(inventory)
    newest, theirs = "", ""
    for found in runs.newest_first(kind.file):
        whose = kind.target(found)
        if whose and whose.is_of(wanted):
            return found
        if not newest:
            newest = f"; the newest is {found.name} of {_said(whose)}"
            theirs = f", or name that one: {whose.named}" if whose and whose.named else ""
    raise Refusal(
        "RUN",
        expected=f"one of {wanted.whose}",
        found=f"none in {runs.directory()}{newest}",
        fix=f"make {kind.made_by} {wanted.named}{theirs}",
    )


def of_either_kind(name: str, inventory: str) -> Path:
    """The run of this name, of load or recorded. Raises Refusal as ``run`` does."""
    is_recorded = any((place / RECORDED.file).is_file() for place in runs.places(name))
    return run(name, inventory, RECORDED if is_recorded else LOAD)


def refuse_foreign(name: str, whose: Target | None, wanted: Target) -> None:
    """Refuse a run of another cluster than is wanted. Pure."""
    if whose is None or not whose.is_of(wanted):
        its_own = f"its own, {whose.named}, or none" if whose and whose.named else "none"
        raise Refusal(
            "RUN",
            expected=f"one of {wanted.whose}",
            found=f"{name} of {_said(whose)}",
            fix=f"name a run of this cluster; or, as the INVENTORY, {its_own}",
        )


def _said(whose: Target | None) -> str:
    return whose.whose if whose else "a cluster that was not noted"
