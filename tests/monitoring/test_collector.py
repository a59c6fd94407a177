"""The collector as a process: datagrams in by UDP, metrics out by HTTP, whatever arrives."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import waiting
from cluster.inventory import REPOSITORY
from tests.clusters import free_ports

FIXTURES = Path(__file__).parent / "fixtures"
DATAGRAMS = (FIXTURES / "datagrams.txt").read_bytes()
COMMAND = [sys.executable, "-m", "monitoring.collector"]


@dataclass
class Running:
    process: subprocess.Popen[str]
    statsd: int
    http: int

    def send(self, *datagrams: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, ("127.0.0.1", self.statsd))

    def scrape(self) -> str:
        address = f"http://127.0.0.1:{self.http}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())

    def value(self, metric: str) -> float:
        match = re.search(rf"^{re.escape(metric)} (\S+)$", self.scrape(), re.MULTILINE)
        return float(match[1]) if match else float("nan")

    def wait_for(self, metric: str, value: float) -> None:
        def observe() -> tuple[bool, str]:
            seen = self.value(metric)
            return seen == value, f"{metric} {seen}"

        waiting.wait_until(observe, what=f"{metric} {value}", timeout_s=10)


@pytest.fixture
def collector() -> Iterator[Running]:
    statsd, http = free_ports(2)
    process = subprocess.Popen(
        [*COMMAND, f"--statsd=127.0.0.1:{statsd}", f"--listen=127.0.0.1:{http}"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "StatsD at" in process.stdout.readline()
        yield Running(process, statsd, http)
    finally:
        process.terminate()
        assert process.wait(10) == 0
        assert process.stdout is not None
        process.stdout.close()


def in_datagrams(data: bytes) -> list[bytes]:
    """Whole lines, in datagrams of at most 1400 bytes, as TigerBeetle sends them."""
    packed: list[bytes] = [b""]
    for line in data.splitlines(keepends=True):
        if len(packed[-1]) + len(line) > 1400:
            packed.append(b"")
        packed[-1] += line
    return packed


def test_what_was_recorded_comes_out_under_the_recorded_names(collector: Running) -> None:
    collector.send(*in_datagrams(DATAGRAMS))
    collector.wait_for("tb_collector_samples_total", len(DATAGRAMS.splitlines()))
    scraped = set(re.findall(r"^(tb_\w+)\{", collector.scrape(), re.MULTILINE))
    recorded = set(re.findall(r"^(tb_\w+)\{", (FIXTURES / "scrape.prom").read_text(), re.MULTILINE))
    assert len(recorded) > 100
    assert recorded <= scraped


def test_labels_are_the_replica_s_words(collector: Running) -> None:
    collector.send(b"tb.replica_messages_in:7|g|#cluster:ab,replica:2,command:request\n")
    collector.wait_for(
        'tb_replica_messages_in{cluster="ab",command="request",replica="2"}', 7
    )  # fmt: skip


def test_nonsense_is_counted_and_the_next_datagram_is_read(collector: Running) -> None:
    collector.send(b"", b"\x00" * 65_000, b"nonsense", b"x:1|ms", b"app.x:1|g|#cluster:c,replica:0")
    collector.send(b"tb.replica_view:3|g|#cluster:c,replica:0")
    collector.wait_for('tb_replica_view{cluster="c",replica="0"}', 3)
    assert collector.value('tb_collector_rejected_total{reason="malformed_line"}') == 2
    assert collector.value('tb_collector_rejected_total{reason="unsupported_type"}') == 1
    assert collector.value('tb_collector_rejected_total{reason="unknown_metric"}') == 1


def test_a_label_cannot_break_out_of_its_quotes(collector: Running) -> None:
    collector.send(b'tb.replica_view:3|g|#cluster:c"} 1\\,replica:0')
    collector.wait_for(r'tb_replica_view{cluster="c\"} 1\\",replica="0"}', 3)


def test_a_taken_address_is_one_clear_line_and_exit_code_2(collector: Running) -> None:
    done = subprocess.run(
        [*COMMAND, f"--statsd=127.0.0.1:{collector.statsd}", "--listen=127.0.0.1:0"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"error: expected .* to be free, found: .*\. Fix: .*\n", done.stderr)


@pytest.mark.parametrize(
    "address", ["8125", "127.0.0.1", "127.0.0.1:x", ":8125", "127.0.0.1:70000"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    done = subprocess.run(
        [*COMMAND, f"--statsd={address}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--statsd" in done.stderr
