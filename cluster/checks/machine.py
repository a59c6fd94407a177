"""One machine as the rules judge it: the facts of its replicas, and how a refusal begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from cluster.checks.facts import Facts
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal


@dataclass(frozen=True)
class Machine:
    """One machine and the facts of its replicas; ``name`` is empty for this one."""

    deployment: Deployment
    name: str
    facts: Mapping[int, Facts]
    #: Of all the replicas that it has: in a rehearsal one server may stand in for several.
    together: Mapping[int, Facts]

    @property
    def seen(self) -> Facts:
        """What is the same for all its replicas."""
        return next(iter(self.facts.values()))

    def runs(self, seen: Facts) -> bool:
        """The replica of these facts runs, as this deployment runs it."""
        return bool(seen.running.get(self.deployment.runtime))

    def refuse(
        self, expected: str, found: object, fix: str, *, here: str = "", there: str = ""
    ) -> NoReturn:
        """A line begins with the server's name, before ``there``; on this machine with ``here``."""
        subject = f"{self.name}: expected {there}" if self.name else f"{here}: expected "
        raise Refusal(f"{subject}{expected}, found {found}. Fix: {fix}")


def machines(deployment: Deployment, seen: Mapping[int, Facts]) -> list[Machine]:
    """This machine with all replicas, or each server with its own."""
    if deployment.settings is None:
        return [Machine(deployment, "", seen, seen)]

    def of_host(index: int) -> dict[int, Facts]:
        own = seen[index].addresses
        return {i: f for i, f in seen.items() if i == index or (own and f.addresses == own)}

    return [
        Machine(deployment, f"replica {i}'s server", {i: f}, of_host(i)) for i, f in seen.items()
    ]
