"""Clusters to break, how often, and the table of how long clients waited."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.report import recovery_report
from loadtests.report.recovery import Recoveries, Strike
from loadtests.run import runs
from tests.docker.sandbox import has_base
from tests.resilience.containers import ContainerWorld, container_world
from tests.resilience.processes import ProcessWorld, process_world
from tests.resilience.recorded import Recorded

#: ``make resilience`` strikes with everything, so often; without it, once, with what matters most.
ROUNDS = int(os.environ.get("RESILIENCE_ROUNDS", "0"))


class Ledger:
    """What all strikes of this session came to; histories are kept by `make resilience`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.recoveries = Recoveries(
            label="TigerBeetle",
            release="",
            started=time.time(),
            strikes=[],
            verdicts={},
            checked=0,
            acknowledged=0,
        )

    def add(self, recorded: Recorded, struck: list[Strike]) -> None:
        """Note a run, and write the table and the report anew."""
        found = self.recoveries
        found.strikes += struck
        found.verdicts[recorded.run.name] = recorded.verdict
        found.checked += len(recorded.history.operations)
        found.acknowledged += recorded.acknowledged
        recovery_report.write(self.directory, found)


_LEDGER = pytest.StashKey[Ledger]()


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Where strikes are noted."""
    name = f"resilience-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    kept = runs.directory() / name if ROUNDS else tmp_path_factory.mktemp("resilience")
    kept.mkdir(parents=True, exist_ok=True)
    return request.config.stash.setdefault(_LEDGER, Ledger(kept))


@pytest.fixture(scope="module")
def processes(ledger: Ledger) -> Iterator[ProcessWorld]:
    """Three genuine replicas under their supervisor, with links that can be cut."""
    with process_world(ledger.directory) as world:
        world.gate(may_restart=range(3))
        ledger.recoveries.release = world.deployment.cluster.release
        yield world


@pytest.fixture(scope="module")
def containers(ledger: Ledger) -> Iterator[ContainerWorld]:
    """Three genuine replicas in Docker."""
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the genuine server: .ci/provision-docker base")
    with container_world(ledger.directory) as world:
        world.gate(may_restart=range(3))
        ledger.recoveries.release = world.deployment.cluster.release
        yield world


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of recovery times."""
    found = terminalreporter.config.stash.get(_LEDGER, None)
    if found and found.recoveries.strikes:
        for line in recovery_report.lines(found.recoveries):
            terminalreporter.write_line(line)
        if ROUNDS:
            terminalreporter.write_line(f"report: {found.directory / 'report.html'}")
