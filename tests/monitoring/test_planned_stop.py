"""A planned stop is said to the monitoring host, and what keeps it from hearing fails no stop."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest

from cluster.config import servers
from cluster.health import planned_stop
from cluster.runtimes import ssh, tunnel
from tests.monitoring.samples import OF


@pytest.fixture
def through_ssh(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is run over SSH, instead of running it: (host, shell line)."""
    ran: list[tuple[str, str]] = []

    def run(there: servers.Host, script: str) -> subprocess.CompletedProcess[str]:
        ran.append((there.hostname, script))
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)

    monkeypatch.setattr(ssh, "run", run)
    return ran


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash: apt-get install bash")
def test_from_outside_the_firewall_a_planned_stop_is_said_on_the_host_itself(
    through_ssh: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "is_needed", lambda deployment: True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        statsd = f"127.0.0.1:{receiver.getsockname()[1]}"
        of = OF.model_copy(update={"cluster": OF.cluster.model_copy(update={"statsd": statsd})})
        assert planned_stop.announce_of(of, [2], is_planned=True)
        assert receiver.recv(65535) == planned_stop.lines(0xAB, [2], is_planned=True)
    assert [there for there, _ in through_ssh] == ["watch.example.com"]


def test_a_host_that_cannot_be_reached_fails_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(there: servers.Host, script: str) -> None:
        raise ssh.SshError("no route")

    monkeypatch.setattr(ssh, "run", refuse)
    monkeypatch.setattr(tunnel, "is_needed", lambda deployment: True)
    assert planned_stop.announce_of(OF, is_planned=True) is False
