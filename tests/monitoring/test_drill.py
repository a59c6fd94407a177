"""The drill: break three genuine replicas under load, and see exactly one alert fire and end.

Prometheus, the exporters and the collector are the real ones, started as `make monitor-up` does;
what fired is asked of Prometheus' own API.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from cluster.health import status
from cluster.operate.backup import outcomes
from cluster.operate.backup.outcomes import Expected, Taken, Verified
from monitoring import stack
from tests.clusters import Sandbox, sandbox
from tests.leases import free_ports
from tests.monitoring import drill

pytestmark = [
    pytest.mark.genuine,
    pytest.mark.slow,
    # A script: it begins with what nobody has broken yet.
    pytest.mark.random_order(disabled=True),
    pytest.mark.skipif(drill.missing() is not None, reason=str(drill.missing())),
]


@dataclass
class World:
    sandbox: Sandbox
    replicas: drill.Replicas
    monitoring: drill.Monitoring
    disk: drill.SmallDisk
    before: set[tuple[str, str]]  # this machine's own: no NTP, say

    def expect(self, alert: str, subject: str, *, within_s: float, since: float) -> None:
        """The alert fires within its bound; since then, nothing else has."""
        took = drill.until(
            lambda: (alert, subject) in self.monitoring.firing(), f"{alert} to fire", within_s
        )
        print(f"{alert} {subject}: fired {took:.0f} s after the fault (bound {within_s:.0f} s)")
        assert self.monitoring.firing(since) - self.before == {(alert, subject)}

    def expect_calm(self, *, within_s: float) -> None:
        """Everything that fires has fired before the fault."""
        took = drill.until(
            lambda: self.monitoring.firing() <= self.before, "the alert to end", within_s
        )
        print(f"ended {took:.0f} s after healing (bound {within_s:.0f} s)")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    *ports, statsd = free_ports(6)
    disk = drill.SmallDisk(tmp_path_factory.mktemp("drill"))
    with sandbox(
        "inventories/process.py",
        LU_CFG_TIGERBEETLE_STATSD=f"127.0.0.1:{statsd}",
        **{stack.PORTS_VARIABLE: ",".join(map(str, ports))},
    ) as made:
        monitoring = drill.Monitoring(made)
        replicas = drill.Replicas(made)
        load = None
        try:
            replicas.wait_until_answering()
            load = drill.Load(made.deployment.cluster.addresses)
            drill.until(
                lambda: len(monitoring.query("tb_replica_status == 0")) == 3,
                "metrics of three normal replicas",
                60,
            )
            time.sleep(60)  # until "a minute ago" and "40 s ago" are of this cluster
            of_machine = {a for a in monitoring.raised() if not a[1].isdigit()}
            yield World(made, replicas, monitoring, disk, of_machine)
        finally:
            if load:
                load.close()
            replicas.close()
            monitoring.close()
            disk.close()


@pytest.fixture
def since(world: World) -> float:
    """Each test begins calm; the time of its fault."""
    assert world.monitoring.firing() <= world.before
    return time.time()


def test_a_start_up_roused_nobody(world: World) -> None:
    assert world.monitoring.firing(time.time() - 120) <= world.before


def test_all_targets_are_scraped(world: World) -> None:
    up = {m["metric"]["job"]: m["value"][1] for m in world.monitoring.query("up")}
    assert up == dict.fromkeys(["tigerbeetle", "tigerbeetle-port", "host", "process"], "1")


def test_commits_and_latency_are_seen(world: World) -> None:
    (rate,) = world.monitoring.query("tb:cluster:commits:rate1m")
    (mean,) = world.monitoring.query(
        'tb:operation:request_seconds:mean1m{operation="Operation.create_transfers"}'
    )
    assert float(rate["value"][1]) > 1
    assert 0 < float(mean["value"][1]) < 10


def test_a_killed_replica_is_down_until_it_is_started_again(world: World, since: float) -> None:
    victim = world.replicas.backup()
    world.replicas.signal(victim, signal.SIGKILL)
    world.expect("TigerBeetleReplicaDown", str(victim), within_s=65, since=since)
    world.replicas.start(victim)
    world.replicas.wait_until_answering()
    world.expect_calm(within_s=30)


def test_a_stopped_replica_is_wedged_until_it_goes_on(world: World, since: float) -> None:
    victim = world.replicas.backup()
    world.replicas.signal(victim, signal.SIGSTOP)
    try:
        world.expect("TigerBeetleReplicaWedged", str(victim), within_s=80, since=since)
    finally:
        world.replicas.signal(victim, signal.SIGCONT)
    world.expect_calm(within_s=45)


def test_a_disk_nearly_full_is_told_until_it_is_freed(world: World, since: float) -> None:
    if not world.disk.is_mounted:
        pytest.skip("a small file system cannot be mounted here: needs root")
    world.disk.fill(60)
    world.expect("TigerBeetleDiskNearlyFull", str(world.disk.path), within_s=45, since=since)
    world.disk.empty()
    world.expect_calm(within_s=15)


@pytest.mark.parametrize("alert", ["TigerBeetleBackupLate", "TigerBeetleBackupVerifyLate"])
def test_a_late_backup_or_proof_is_told_until_there_is_one(
    world: World, since: float, alert: str
) -> None:
    of, now = world.sandbox.deployment, datetime.now(UTC)
    is_proof = alert == "TigerBeetleBackupVerifyLate"
    owed = Expected(
        since=now - timedelta(hours=2),
        backup_s=86400 if is_proof else 3600,
        verify_s=3600 if is_proof else None,
    )
    with world.sandbox.entered():
        outcomes.note(of, owed)
        world.expect(alert, "", within_s=45, since=since)
        proven = Verified(name="20261129T020000Z", at=now, passed=True)
        outcomes.note_verified(of, proven) if is_proof else outcomes.note(
            of, Taken(name="20261129T020000Z", at=now)
        )
        world.expect_calm(within_s=30)
        outcomes.expect_nothing(of)


def test_a_lagging_replica_is_told_until_it_has_caught_up(world: World, since: float) -> None:
    victim = world.replicas.backup()
    stop = threading.Event()
    growing = drill.ramp(world.replicas.links, victim, stop)
    try:
        world.expect("TigerBeetleReplicaLagging", str(victim), within_s=180, since=since)
    finally:
        stop.set()
        growing.join(5)
        world.replicas.links.heal()
    world.expect_calm(within_s=60)


@pytest.mark.parametrize("role", ["backup", "primary"])
def test_a_replica_cut_off_in_silence_is_wedged_until_healed(
    world: World, since: float, role: str
) -> None:
    replicas = world.replicas
    victim = replicas.backup() if role == "backup" else replicas.primary()
    replicas.links.isolate(victim)
    try:
        took = drill.until(
            lambda: ("TigerBeetleReplicaWedged", str(victim)) in world.monitoring.firing(),
            "TigerBeetleReplicaWedged to fire",
            100,
        )
        print(f"{role} cut off: fired {took:.0f} s after the cut (bound 100 s)")
        fired = world.monitoring.firing(since) - world.before
        assert {subject for _, subject in fired} == {str(victim)}
        seen = replicas.health()
        assert seen[victim].port_open  # what a port check calls healthy
        assert status.judge(seen, None)[0] == "degraded"
        assert [r.replica.index for r in seen if not r.is_normal] == [victim]
        assert seen[victim].wedged_because == (
            "hears no primary" if role == "backup" else "old view"
        )
    finally:
        replicas.links.heal()
    world.expect_calm(within_s=60)
