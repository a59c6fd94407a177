"""What turns StatsD into Prometheus metrics, as processes: our collector, and statsd_exporter."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import REPOSITORY
from cluster.tigerbeetle import waiting
from monitoring import stack
from tests.leases import free_ports

FIXTURES = Path(__file__).parent / "fixtures"
DATAGRAMS = (FIXTURES / "datagrams.txt").read_bytes()
COLLECTOR = [sys.executable, "-m", "monitoring.collector.collector"]
#: Debian would call it so; its own releases and images call it the other.
STATSD_EXPORTER = shutil.which("prometheus-statsd-exporter") or shutil.which("statsd_exporter")
MAPPING = stack.FILES / "statsd_mapping.yml"


@dataclass
class Receiver:
    """One that runs: UDP in, HTTP out."""

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

        waiting.wait_until(observe, what=f"{metric} {value}", timeout_s=100)


@contextmanager
def collector(*options: str) -> Iterator[Receiver]:
    """Ours."""
    statsd, http = free_ports(2)
    process = subprocess.Popen(
        [*COLLECTOR, f"--statsd=127.0.0.1:{statsd}", f"--listen=127.0.0.1:{http}", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert "StatsD at" in process.stdout.readline()
            yield Receiver(process, statsd, http)
        finally:
            process.terminate()
            assert process.wait(10) == 0


@contextmanager
def statsd_exporter(mapping: Path = MAPPING) -> Iterator[Receiver]:
    """The widely used one, as docker-compose.monitoring.yaml starts it."""
    assert STATSD_EXPORTER is not None
    statsd, http = free_ports(2)
    process = subprocess.Popen(
        [
            STATSD_EXPORTER,
            f"--statsd.mapping-config={mapping}",
            "--statsd.listen-tcp=",
            f"--statsd.listen-udp=127.0.0.1:{statsd}",
            f"--web.listen-address=127.0.0.1:{http}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    receiver = Receiver(process, statsd, http)

    def observe() -> tuple[bool, str]:
        try:
            return "statsd_exporter_loaded_mappings" in receiver.scrape(), "no metrics"
        except urllib.error.URLError as error:
            return False, str(error)

    with process:
        try:
            waiting.wait_until(observe, what="statsd_exporter's metrics", timeout_s=100)
            yield receiver
        finally:
            process.terminate()
            process.wait(10)


def in_datagrams(data: bytes) -> list[bytes]:
    """Whole lines, in datagrams of at most 1400 bytes, as TigerBeetle sends them."""
    packed: list[bytes] = [b""]
    for line in data.splitlines(keepends=True):
        if len(packed[-1]) + len(line) > 1400:
            packed.append(b"")
        packed[-1] += line
    return packed
