"""What every way to run replicas answers: ``of(deployment)`` is the module that knows.

A runtime is a module: ``processes`` (supervised processes on this machine), ``containers``
(Compose on this machine), and ``units`` (over SSH).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cluster.config.inventory import Deployment


@dataclass(frozen=True)
class ReplicaProcess:
    """A replica's state (RUNNING, STARTING, BACKOFF, FATAL, EXITED, ...) and its pid or 0."""

    state: str
    pid: int

    @property
    def is_running(self) -> bool:
        """Started, and not restarting."""
        return self.state == "RUNNING"


class Runtime(Protocol):
    """The questions."""

    GIVEN_UP: frozenset[str]
    """States that end only when somebody does something: waiting on is no use."""

    def states(self, deployment: Deployment) -> dict[int, ReplicaProcess] | None:
        """Replica index → process; None when nothing of the deployment runs."""

    def log_source(self, deployment: Deployment, index: int) -> str:
        """Where a person reads the replica's log."""

    def log_lines(self, deployment: Deployment, index: int) -> Iterable[str]:
        """The whole log that is kept, oldest line first; empty when there is none."""

    def log_tail(self, deployment: Deployment, index: int, lines: int = 15) -> list[str]:
        """The last lines of it."""

    def follow(self, deployment: Deployment, indexes: Sequence[int], lines: int) -> int:
        """Print the last lines of these replicas and go on until interrupted; the exit code."""


def of(deployment: Deployment) -> Runtime:
    """The runtime of a deployment."""
    from cluster.runtimes import (  # here: they import this module's words
        containers,
        processes,
        units,
    )

    modules: dict[str, Runtime] = {
        "process": processes,
        "compose": containers,
        "systemd": units,
        "docker": units,
    }
    return modules[deployment.runtime]
