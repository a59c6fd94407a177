"""``python -m monitoring.collector.collector``: StatsD in by UDP, Prometheus out by HTTP.

    --statsd IP:PORT   where the replicas send, LU_CFG_TIGERBEETLE_STATSD
    --listen IP:PORT   where Prometheus scrapes /metrics
    --textfiles DIR    metrics that are kept in files, see ``textfile``

No datagram can stop it: those that are not TigerBeetle's are counted in
``tb_collector_rejected_total``.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from monitoring.collector import textfile
from monitoring.collector.series import Series

DATAGRAM_MAX = 65_535
#: Three replicas emit within milliseconds of one another: keep room for many whole emissions.
RECEIVE_BUFFER_BYTES = 8 * 1024**2


class Collector:
    """What was received so far. One thread receives and others scrape, so there is a lock."""

    def __init__(self, textfiles: Path | None = None) -> None:
        self._series = Series()
        self._textfiles = textfiles
        self._lock = threading.Lock()

    def receive(self, data: bytes) -> None:
        """Record one datagram."""
        with self._lock:
            self._series.receive(data, time.monotonic())

    def collect(self) -> Iterator[Metric]:
        """All series that are not stale, and the collector's own; prometheus-client's protocol."""
        with self._lock:
            self._series.forget_stale(time.monotonic())
            families = [*self._series.families(), *_own(self._series)]
        yield from families
        if self._textfiles:
            kept, unread = textfile.families(self._textfiles)
            yield from kept
            yield GaugeMetricFamily(
                "tb_collector_textfiles_unread", "Files that were not understood", value=unread
            )

    def describe(self) -> list[Metric]:
        """No series beforehand: which ones exist depends on the datagrams."""
        return []


def _own(series: Series) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "tb_collector_datagrams", "Datagrams received", value=series.datagrams
    )
    yield CounterMetricFamily("tb_collector_samples", "Samples recorded", value=series.samples)
    yield GaugeMetricFamily("tb_collector_series", "Series held", value=len(series))
    rejected = CounterMetricFamily(
        "tb_collector_rejected", "Lines that were not understood", labels=["reason"]
    )
    for reason, count in sorted(series.rejected.items()):
        rejected.add_metric([reason], count)
    yield rejected


def address(text: str) -> tuple[str, int]:
    """``IP:PORT`` as a pair. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not 0 <= int(port) <= 65_535:
        raise ValueError(text)
    return host, int(port)


def bind(where: tuple[str, int]) -> socket.socket:
    """The UDP socket that the replicas send to. Raises OSError."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    receiver.bind(where)
    return receiver


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; exit code 2 for an address that cannot be bound."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.collector.collector", description=__doc__
    )
    parser.add_argument("--statsd", type=address, default="127.0.0.1:8125", metavar="IP:PORT")
    parser.add_argument("--listen", type=address, default="127.0.0.1:9102", metavar="IP:PORT")
    parser.add_argument("--textfiles", type=Path, metavar="DIR")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    collector = Collector(options.textfiles)
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        receiver = bind(options.statsd)
        host, port = options.listen
        start_http_server(port, host, registry)
    except OSError as error:
        where = f"{options.statsd} (UDP) and {options.listen} (TCP)"
        print(
            f"error: expected {where} to be free, found: {error}. Fix: stop what listens there, or "
            "give other addresses with --statsd and --listen",
            file=sys.stderr,
        )
        return 2
    print(f"collector: StatsD at {options.statsd}, metrics at {options.listen}", flush=True)
    while True:
        collector.receive(receiver.recv(DATAGRAM_MAX))


if __name__ == "__main__":
    sys.exit(main())
