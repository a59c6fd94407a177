"""Options and fixtures of every suite, and what this machine lacks for the marked tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from cluster import config
from cluster.tigerbeetle import binary
from tests.docker.sandbox import lacks_engine
from tests.remote.bed import lacks_bed

# A busy machine is no fault: how long an example takes is not asserted.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--inventory",
        help="the deployment that tests/infra verifies; without it, they skip when nothing runs",
    )


def pytest_configure() -> None:
    # A suite that a script starts in the background inherits a SIGINT that is ignored, and so
    # would all that it starts: no Ctrl-C of a test would arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _lacks(marker: str) -> str | None:
    """Why tests with this marker cannot run here, or None when they can."""
    if marker == "genuine" and binary.find_tigerbeetle(config.load()) is None:
        return "no genuine tigerbeetle server in TIGERBEETLE_BIN or on PATH"
    if marker == "docker":
        return lacks_engine()
    if marker == "remote":
        return lacks_bed()
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker in ("genuine", "docker", "remote"):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and (reason := _lacks(marker)):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header() -> str:
    server = shutil.which("tigerbeetle") or "none"
    return f"genuine server: {os.environ.get('TIGERBEETLE_BIN') or server}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many ran of each suite."""
    ran = Counter(
        report.nodeid.split("/")[1].split("::")[0]
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and "/" in report.nodeid
    )
    if ran:
        counts = " · ".join(f"{suite} {count}" for suite, count in sorted(ran.items()))
        terminalreporter.write_line(f"ran: {counts}")
