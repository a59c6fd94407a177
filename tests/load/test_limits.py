"""Who was the limit: the generator, the network, or the cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loadtests import limits
from loadtests.client.network import Network
from loadtests.proof.audit import check_complete
from loadtests.run.meter import Here
from loadtests.run.result import Latency
from loadtests.run.series import by_worker, figures
from tests.load.samples import STARTED, result, second

NOTHING = Latency(p50_ms=None, p95_ms=None, p99_ms=None, p999_ms=None, max_ms=None)


def here(worker: int, host: str) -> Here:
    return Here(worker=worker, host=host, clock_offset_ms=-3.0, rtt_ms=0.5)


def slow(**more: Any) -> Any:
    """A window with p99 at 200 ms, packets of 10 ms, and a generator that is on time."""
    parts = {"cpu": 30.0, "network": 5.0, "late": 2.0} | more
    return figures([], 0.0).model_copy(
        update={
            "latency": NOTHING.model_copy(update={"p99_ms": 200.0}),
            "request_latency": NOTHING.model_copy(update={"p50_ms": 10.0}),
            "hub_lag": NOTHING.model_copy(update={"p99_ms": parts["late"]}),
            "generator_cpu_percent": parts["cpu"],
            "network_percent": parts["network"],
        }
    )


@pytest.mark.parametrize(
    ("window", "rtt_ms", "who"),
    [
        (slow(), None, "cluster"),
        (slow(), 0.4, "cluster"),
        (slow(cpu=71.0), 0.4, "generator"),
        (slow(late=150.0), 0.4, "generator"),
        (slow(network=80.0), 0.4, "network"),
        (slow(), 8.0, "network"),
        (slow(cpu=90.0, network=90.0), 8.0, "generator"),
        (figures([], 0.0), 0.4, "cluster"),
    ],
)
def test_a_window_that_missed_its_bound_names_its_limit(
    window: Any, rtt_ms: float | None, who: str
) -> None:
    assert limits.limit(window, rtt_ms) == who
    assert who in limits.WORDS[limits.limit(window, rtt_ms)]


def test_an_interface_is_as_busy_as_its_busier_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"lo": 65535, "eth0": 1000, "eth1": 0, "wifi": 100}
    stats = {n: SimpleNamespace(isup=True, speed=speed) for n, speed in speeds.items()}
    counted = {n: SimpleNamespace(bytes_sent=0, bytes_recv=0) for n in speeds}
    clock = [100.0]
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: dict(counted))
    monkeypatch.setattr("loadtests.client.network.time.monotonic", lambda: clock[0])
    network = Network()
    clock[0] += 2
    for name in speeds:  # 100 MB out and 25 in within two seconds: 400 Mbit/s
        counted[name] = SimpleNamespace(bytes_sent=100_000_000, bytes_recv=25_000_000)
    counted["wifi"] = SimpleNamespace(bytes_sent=0, bytes_recv=1_000_000)
    assert network.percent() == pytest.approx(40.0)
    clock[0] += 1
    assert network.percent() == 0.0


def test_without_a_known_speed_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "net_if_stats", dict)
    assert Network().percent() == 0.0


def test_each_worker_has_its_own_figures_and_a_lost_one_is_told() -> None:
    seconds = [second(STARTED + 1, 2), second(STARTED + 2, 4)]
    seconds[1]["worker"] = 1
    first, lost, unheard = by_worker(seconds, 1.0, {0: here(0, "load1")}, missing=[1, 2])
    assert (first.host, first.clock_offset_ms, first.rtt_ms) == ("load1", -3.0, 0.5)
    assert (lost.host, lost.clock_offset_ms, lost.rtt_ms) == ("not known", None, None)
    assert [each.complete for each in (first, lost, unheard)] == [True, False, False]
    assert lost.actions_per_s == first.actions_per_s > 0
    assert unheard.actions_per_s == 0


def test_a_record_without_a_lost_worker_s_share_is_unknown_by_its_name(tmp_path: Path) -> None:
    lost = by_worker([], 1.0, {1: here(1, "load1")}, missing=[1])
    whole = result().model_copy(update={"transfers_sent": 0})
    for workers, verdict in (([], "passed"), (lost, "unknown")):
        written = whole.model_copy(update={"by_worker": workers, "complete": not workers})
        (tmp_path / "result.json").write_text(written.model_dump_json())
        check = check_complete(tmp_path)
        assert check.verdict == verdict
    assert "worker 1 on load1 never handed in its figures" in check.detail
