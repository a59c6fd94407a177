"""Options and fixtures of every suite, and what this machine lacks for the marked tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from cluster import config
from cluster.tigerbeetle import binary
from tests import scheduling
from tests.leases import give_locust_its_port

# Every test process, and every program that a test starts, would compile the whole project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A make that a test types is a person's, and not a part of the one that may run the suite: it would
# call itself "make[1]", and take over that one's variables.
for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):
    os.environ.pop(name, None)

# A busy machine is no fault: how long an example takes is not asserted.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

#: Most tests wait for somebody else's process: three of them share a core.
WORKERS_PER_CORE, WORKERS_MAX = 3, 32

NO_SERVER = "no genuine tigerbeetle in TIGERBEETLE_BIN or on PATH: make download"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--inventory",
        help="the deployment that tests/infra verifies; without it, they skip when nothing runs",
    )
    parser.addoption(
        "--budget-s",
        type=float,
        default=float("inf"),
        help="begin no test later than so many seconds after the start; the rest skip and say so",
    )


def pytest_configure() -> None:
    # A suite that a script starts in the background inherits a SIGINT that is ignored, and so
    # would all that it starts: no Ctrl-C of a test would arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    give_locust_its_port()


_STARTED = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    budget_s = item.config.getoption("--budget-s")
    if time.monotonic() - _STARTED > budget_s:
        pytest.skip(f"the {budget_s:.0f} s of --budget-s are over: make test-all")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: as many test processes as the machine keeps busy."""
    cores = psutil.cpu_count() or 1  # on every system; the process' own share is Linux's alone
    return min(cores * WORKERS_PER_CORE, WORKERS_MAX)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a fixture stays in one process."""
    return scheduling.ByNeed(config, log)


@pytest.fixture(scope="session")
def takes_memory() -> None:
    """For fixtures whose cluster may be a genuine one: see tests/scheduling.py."""


def _lacks(marker: str) -> str | None:
    """Why tests with this marker cannot run here, or None when they can."""
    if marker == "genuine" and binary.find_tigerbeetle(config.load()) is None:
        return NO_SERVER
    if marker == "docker":
        from tests.docker.sandbox import lacks_engine

        return lacks_engine()
    if marker == "remote":
        from tests.remote.bed import lacks_bed

        return lacks_bed()
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("genuine", "docker", "remote"):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := _lacks(marker)):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))
    scheduling.remember(config, items)
    assert config.cache
    if config.getoption("random_order_enabled"):
        return
    groups = {item.nodeid: scheduling.group_of(item) for item in items}
    took = scheduling.seconds(config, groups)
    items.sort(key=lambda item: (-took[groups[item.nodeid]], groups[item.nodeid]))


def pytest_report_header() -> str:
    server = shutil.which("tigerbeetle") or "none"
    return f"genuine server: {os.environ.get('TIGERBEETLE_BIN') or server}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """How many ran of each suite, how to repeat what failed; and remember who took how long."""
    ran: Counter[str] = Counter()
    took: Counter[str] = Counter()
    for outcome in ("", "passed", "failed", "skipped", "error"):  # "": a fixture's part of a test
        for report in terminalreporter.stats.get(outcome, []):
            if not isinstance(report, pytest.TestReport) or "/" not in report.nodeid:
                continue
            took[report.nodeid] += report.duration  # type: ignore[assignment]
            if report.when == "call" and outcome != "skipped":
                ran[report.nodeid.split("/")[1].split("::")[0]] += 1
    for reports in (terminalreporter.stats.get(kind, []) for kind in ("failed", "error")):
        for report in reports:
            nodeid = report.nodeid.partition("@")[0]
            terminalreporter.write_line(f"repeat alone: .venv/bin/pytest '{nodeid}'")
    if ran:
        counts = " · ".join(f"{suite} {count}" for suite, count in sorted(ran.items()))
        terminalreporter.write_line(f"ran: {counts}")
    if config.cache and not os.environ.get("PYTEST_XDIST_WORKER"):
        scheduling.remember_seconds(config, took)
