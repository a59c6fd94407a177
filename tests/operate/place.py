"""A machine of a test's own, and the catalogue of what can be wrong with one.

A machine is a function over a ``Place``: it breaks files there, sets the environment, or says what
the command's own process has to suffer. ``machines`` and ``programs`` fill the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

REPLICAS = range(3)


@dataclass
class Place:
    """A machine of a test's own, whole until something breaks it."""

    repository: Path
    data: Path
    programs: Path  # first on PATH
    environ: dict[str, str]
    suffers: list[Callable[[], object]] = field(default_factory=list)  # in the command's process
    at_end: list[Callable[[], object]] = field(default_factory=list)
    stdout: str = ""  # closed, broken: nobody reads it, or the path of a device

    @property
    def state(self) -> Path:
        """The deployment's own directory."""
        return self.data / "emulator"

    @property
    def run(self) -> Path:
        """A finished run of load."""
        return self.data / "runs" / "20270115-080000-0001"

    @property
    def backup(self) -> Path:
        """A backup of the deployment."""
        return self.data / "backups" / "emulator" / "20261124T000000Z"

    def data_files(self) -> list[Path]:
        """All replicas'."""
        return [self.state / f"replica-{i}" / f"0_{i}.tigerbeetle" for i in REPLICAS]

    def program(self, name: str, script: str) -> None:
        """Put one first on PATH."""
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)


Machine = Callable[[Place], object]  # what it gives is of no interest
MACHINES: dict[str, Machine] = {}


def named(name: str, machine: Machine) -> None:
    """Take it into the catalogue; what is before the colon is its kind."""
    MACHINES[name] = machine
