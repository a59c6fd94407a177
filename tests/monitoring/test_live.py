"""`make monitor-up` on this machine: the real Prometheus scrapes, evaluates, and answers."""

from __future__ import annotations

import shutil
import socket
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from cluster.config import PREFIX
from cluster.health import planned_stop
from cluster.operate.backup import outcomes
from cluster.operate.backup.outcomes import Expected
from monitoring import stack
from tests.clusters import Sandbox, sandbox
from tests.leases import free_ports
from tests.monitoring.drill import INTERRUPTED, Monitoring, until
from tests.monitoring.receivers import DATAGRAMS, in_datagrams
from tests.monitoring.test_dashboards import QUERIES

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install it"
)
CLUSTER = "0" * 32
BOUND_S = 400  # against a hang
HOUR_S = 3600
_TARGETS = ["1"] * (
    1
    + sum(stack.find(name) is not None for name in ("host", "process"))
    + 3 * (stack.find("blackbox") is not None)
)


@dataclass
class Live:
    sandbox: Sandbox
    monitoring: Monitoring

    def send(self, *datagrams: bytes) -> None:
        host, _, port = self.sandbox.deployment.cluster.statsd.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, (host, int(port)))

    def values(self, expression: str) -> list[str]:
        return [found["value"][1] for found in self.monitoring.query(expression)]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    *ports, statsd = free_ports(6)
    with sandbox(
        "inventories/emulator.py",
        LU_CFG_TIGERBEETLE_STATSD=f"127.0.0.1:{statsd}",
        **{stack.PORTS_VARIABLE: ",".join(map(str, ports))},
    ) as made:
        up = made.up()
        assert up.returncode == 0, up.stderr[-2000:]
        monitoring = Monitoring(made)
        try:
            live = Live(made, monitoring)
            until(lambda: _ups(live) == _TARGETS, f"{len(_TARGETS)} targets", BOUND_S)
            yield live
        finally:
            monitoring.close()


def _ups(live: Live) -> list[str]:
    try:
        return live.values("up")
    except urllib.error.URLError:
        return []  # it starts


def test_every_target_is_scraped(live: Live) -> None:
    until(lambda: _ups(live) == _TARGETS, f"{len(_TARGETS)} targets", BOUND_S)


@pytest.mark.skipif(
    stack.find("blackbox") is None,
    reason="no blackbox exporter: apt-get install prometheus-blackbox-exporter",
)
def test_the_port_of_each_replica_is_seen_open(live: Live) -> None:
    until(lambda: live.values("tb:replica:port_open") == ["1"] * 3, "three open ports", BOUND_S)


def test_a_replica_s_datagram_can_be_queried(live: Live) -> None:
    live.send(*in_datagrams(DATAGRAMS))
    live.send(b"tb.replica_view:41|g|#cluster:%b,replica:2" % CLUSTER.encode())
    until(
        lambda: live.values(f'tb_replica_view{{cluster="{CLUSTER}",replica="2"}}') == ["41"],
        "the view",
        BOUND_S,
    )


@pytest.mark.parametrize("query", QUERIES)
def test_prometheus_answers_every_query_of_the_dashboards(live: Live, query: str) -> None:
    live.monitoring.query(query.replace("$cluster", CLUSTER))  # an error is an HTTP error


def test_a_wrong_query_would_be_refused(live: Live) -> None:
    with pytest.raises(urllib.error.HTTPError):
        live.monitoring.query("rate(tb_replica_view)")


def test_the_status_of_the_monitoring_is_shown(live: Live) -> None:
    done = live.sandbox.run("python", "-m", "cluster", "alerts")
    assert done.returncode in (0, 1)  # this machine may have alerts of its own
    assert "tigerbeetle" in done.stdout and "up" in done.stdout


def test_another_cluster_s_prometheus_is_not_shown_for_its_own(live: Live) -> None:
    with live.sandbox.having(LU_CFG_TIGERBEETLE_CLUSTER_ID="7"):
        done = live.sandbox.run("python", "-m", "cluster", "alerts")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: Prometheus: expected that of cluster 7 (emulator, emulator), found that of cluster "
        "0 (emulator, emulator). Fix: name its INVENTORY, or stop it and start this one's: "
        "make monitor-up INVENTORY=inventories/emulator.py\n"
    )


def test_a_second_start_changes_nothing(live: Live) -> None:
    before = live.values("process_start_time_seconds")
    again = live.sandbox.pyinfra("tasks.monitoring.start")
    assert again.returncode == 0
    assert "No changes" in again.stderr
    assert live.values("process_start_time_seconds") == before


def test_a_program_that_has_ended_is_started_again(live: Live) -> None:
    config = live.sandbox.state_dir / "monitoring" / "supervisord.conf"
    supervise = ("supervisorctl", "-c", str(config))
    live.sandbox.run(*supervise, "stop", "collector")
    again = live.sandbox.pyinfra("tasks.monitoring.start")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "RUNNING" in live.sandbox.run(*supervise, "status", "collector").stdout


def test_make_down_is_a_planned_stop_which_can_be_taken_back(live: Live) -> None:
    assert live.sandbox.down().returncode == 0
    planned = "tb:replica:planned_stop"
    until(lambda: live.values(planned) == ["1"] * 3, "three planned stops", BOUND_S)
    assert planned_stop.announce(live.sandbox.deployment.cluster, [0, 1, 2], is_planned=False)
    until(lambda: live.values(planned) == [], "their end", BOUND_S)
    assert live.sandbox.up().returncode == 0


@pytest.mark.long
def test_backups_that_are_late_or_do_not_restore_are_told_until_they_are_taken_and_proven(
    live: Live,
) -> None:
    of, day = live.sandbox.deployment, timedelta(days=1)
    owed = Expected(since=datetime.now(UTC) - day, backup_s=HOUR_S, verify_s=HOUR_S)
    late, unproven, failed = (
        (f"TigerBeetleBackup{name}", "") for name in ("Late", "VerifyLate", "VerifyFailed")
    )

    def see(*alerts: tuple[str, str]) -> None:
        theirs = {late, unproven, failed}
        until(lambda: live.monitoring.firing() & theirs == {*alerts}, f"{alerts} to fire", BOUND_S)

    see()
    with live.sandbox.entered():
        outcomes.note(of, owed)
    see(late, unproven)
    assert live.sandbox.call("backup").returncode == 0
    see(unproven)
    (packed,) = (live.sandbox.directory / "backups").rglob("replica-0.*")
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert live.sandbox.call("backup-verify").returncode == 1
    see(unproven, failed)
    packed.write_bytes(whole)
    done = live.sandbox.call("backup-verify")
    assert done.returncode == 0, done.stdout + done.stderr
    see()
    (age,) = live.values("tb:backup:age_seconds")
    assert 0 < float(age) < HOUR_S
    config = str(live.sandbox.state_dir / "monitoring" / "supervisord.conf")
    restarted = live.sandbox.run("supervisorctl", "-c", config, "restart", "all")
    assert restarted.returncode == 0, restarted.stdout
    since = time.time()
    until(lambda: _told_since(live, since), "what is kept to be told again", BOUND_S)


def _told_since(live: Live, since: float) -> bool:
    kept = "wallet_service_backup_verify_last_success_timestamp_seconds"
    try:
        return len(live.values(f"timestamp({kept}) > {since}")) == 1
    except urllib.error.URLError:
        return False  # it starts


def test_what_an_interrupted_start_has_written_is_applied_by_the_next(tmp_path: Path) -> None:
    interrupted = tmp_path / "interrupted.py"
    interrupted.write_text(INTERRUPTED)
    *ports, statsd, other = free_ports(7)
    settings = {stack.PORTS_VARIABLE: ",".join(map(str, ports))}
    settings[f"{PREFIX}STATSD"] = f"127.0.0.1:{statsd}"
    changed = {f"{PREFIX}CLUSTER_ID": "7", f"{PREFIX}STATSD": f"127.0.0.1:{other}"}
    with sandbox("inventories/emulator.py", **settings) as made:
        live = Live(made, Monitoring(made))
        try:
            with made.having(**changed):
                assert made.pyinfra(str(interrupted)).returncode == 0
                again = made.pyinfra("tasks.monitoring.start")
                assert again.returncode == 0, again.stderr[-2000:]
                until(lambda: _arrives(live), "the collector at its new address", BOUND_S)
            assert f"{7:032x}" in live.monitoring.loaded()

            base = made.state_dir / "monitoring"
            supervisor = psutil.Process(int((base / "supervisord.pid").read_text()))
            everything = [supervisor, *supervisor.children(recursive=True)]
            (base / "supervisor.sock").unlink()  # as by whatever tidies up temporary files
            assert made.pyinfra("tasks.monitoring.stop").returncode == 0
            assert psutil.wait_procs(everything, timeout=BOUND_S)[1] == []
        finally:
            live.monitoring.close()


def _arrives(live: Live) -> bool:
    live.send(b"tb.replica_view:5|g|#cluster:%b,replica:0" % CLUSTER.encode())
    try:
        return live.values("tb_replica_view") == ["5"]
    except urllib.error.URLError:
        return False  # it starts


def test_without_prometheus_its_status_says_so() -> None:
    ports = ",".join(map(str, free_ports(5)))
    nobody = Sandbox(
        "inventories/emulator.py", stack.FILES, (1, 2, 3), {stack.PORTS_VARIABLE: ports}
    )
    done = nobody.run("python", "-m", "cluster", "alerts")
    assert done.returncode == 4
    assert "Fix: make monitor-up" in done.stdout
