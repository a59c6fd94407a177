"""The deployment under verification, read as a user would: INVENTORY= or --inventory."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from cluster.config import inventory
from cluster.config.deployment import Deployment, Engine, Runtime
from cluster.operate.backup import freeze
from cluster.refusal import Refusal
from cluster.runtimes import of
from tests.infra.world import World, seen

_DEPLOYMENT = pytest.StashKey[Deployment]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[_DEPLOYMENT] = inventory.read(config.getoption("--inventory"))
        if config.getoption("--inventory") and not config.option.collectonly:
            _require_replicas(config.stash[_DEPLOYMENT])
    except Refusal as error:
        raise pytest.UsageError(str(error)) from None


def _require_replicas(deployment: Deployment) -> None:
    """Raises Refusal where nothing is to be looked at: each row would say so again."""
    runtime = of(deployment)
    runtime.check_readable()
    states = (runtime.states() or {}).values()
    if not any(state.pid or not state.is_known for state in states):
        found = f"none of {deployment.name}"
        raise Refusal("verify", expected="replicas that run", found=found, fix=runtime.up)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a backup of it would cost: no fault either way, but something to know."""
    config = terminalreporter.config
    if config.getoption("--inventory") and not config.option.collectonly:
        try:
            terminalreporter.write_line(freeze.foreseen(config.stash[_DEPLOYMENT]))
        except Refusal as error:
            terminalreporter.write_line(str(error))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A directory named after a runtime or an engine holds rows for that one alone."""
    found = config.stash[_DEPLOYMENT]
    others = {*get_args(Runtime), *get_args(Engine), "servers"} - {found.runtime, found.engine}
    if found.servers:
        others -= {"servers"}
    return True if collection_path.name in others and collection_path.is_dir() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A row per replica, so that each has its own line in the result."""
    if "replica" in metafunc.fixturenames:
        replicas = metafunc.config.stash[_DEPLOYMENT].cluster.replicas
        metafunc.parametrize("replica", replicas, ids=lambda r: f"replica-{r.index}")


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """What the inventory says should be there."""
    found = request.config.stash[_DEPLOYMENT]
    asked_for = request.config.getoption("--inventory")
    if not asked_for and of(found).states() is None:
        named = found.named
        pytest.skip(f"no {found.name} cluster runs: `make up {named}`, then `make verify {named}`")
    return found


@pytest.fixture
def world(host: object, deployment: Deployment) -> World:
    """What is really there, read through testinfra from files and /proc."""
    return seen(host, deployment)
