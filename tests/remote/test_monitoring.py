"""Replicas on servers, watched by a host of their own: its Prometheus is asked what it knows.

In the order in which they are written: each test goes on where the one before ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cluster.checks.firewall import EXPORTER_PORT
from cluster.tigerbeetle.waiting import wait_until
from monitoring import exporter
from monitoring import host as monitoring_host
from tests.remote.bed import make_bed
from tests.remote.site import PORT, Site, changes, said
from tests.remote.watch import (
    DISK,
    PROMETHEUS_PORT,
    RECEIVER,
    STATSD_PORT,
    UNITS,
    firing,
    full_disks,
    listeners,
    lives,
    query,
    until,
    values,
)

pytestmark = [
    pytest.mark.remote,
    pytest.mark.genuine,
    pytest.mark.long,
    pytest.mark.random_order(disabled=True),  # before it is up, while, and after
]

#: Longer than docs/monitoring.md says of any alert that is raised here.
FIRES_S, ENDS_S = 1500, 600

#: As `systemctl show` prints them.
SETTINGS = {
    "ProtectSystem": "strict",
    "ProtectProc": "invisible",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
}
SETTINGS |= dict.fromkeys(
    [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ],
    "yes",
)

SEND = "bash -c \"printf '%s' '{line}' >/dev/udp/{ip}/{port}\""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Three genuine replicas that send their metrics to a fourth host, on which nothing is yet."""
    with make_bed("bare", with_monitor=True) as bed:
        made = Site(bed, variables={"STATSD": f"{bed.monitor.ip}:{STATSD_PORT}"})
        bed.client.read(f"systemd-run --quiet --unit=alertmanager python3 -uc '{RECEIVER}'")
        made.write(
            monitoring_host=bed.monitor.ip,
            node_exporter=True,
            alertmanagers=[f"{bed.client.ip}:9093"],
        )
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        yield made


@pytest.fixture(scope="module")
def watched(site: Site) -> Site:
    """The same, monitored."""
    started = time.monotonic()
    done = site.run("make", "monitor-up")
    assert done.returncode == 0, said(done)[-4000:]
    print(f"first monitor-up {time.monotonic() - started:.0f} s")
    return site


def test_a_host_without_the_named_address_is_refused_before_any_change(site: Site) -> None:
    host = site.bed.monitor
    before = host.read("dpkg -l; ls /etc/systemd/system; getent passwd")
    site.write(monitoring_bind="192.0.2.7")
    try:
        done = site.run("make", "monitor-up")
    finally:
        site.settings.pop("monitoring_bind")
        site.write()
    assert done.returncode != 0
    assert "monitoring host: expected the address 192.0.2.7 of monitoring_bind" in said(done)
    assert host.read("dpkg -l; ls /etc/systemd/system; getent passwd") == before


def test_a_taken_port_is_refused_before_any_change(site: Site) -> None:
    host = site.bed.monitor
    before = host.read("dpkg -l; ls /etc/systemd/system; getent passwd")
    host.read(f"systemd-run --quiet --unit=taken python3 -m http.server {PROMETHEUS_PORT}")
    try:
        until(lambda: host.reaches("127.0.0.1", PROMETHEUS_PORT), True, 20)
        done = site.run("make", "monitor-up")
    finally:
        host.read("systemctl stop taken")
    assert done.returncode != 0
    assert f"expected tcp 127.0.0.1:{PROMETHEUS_PORT} to be free, found somebody" in said(done)
    assert host.read("dpkg -l; ls /etc/systemd/system; getent passwd") == before


def test_a_replica_s_server_is_never_taken_for_the_monitoring_host(site: Site) -> None:
    done = site.pyinfra("tasks.monitoring.start")
    assert done.returncode != 0
    assert "expected the monitoring host, found a replica's. Fix: make monitor-up" in said(done)
    for host in site.bed.hosts:
        assert host.inside("test -e /etc/tigerbeetle/monitoring").returncode != 0


def test_prometheus_shows_the_three_replicas(watched: Site) -> None:
    bed = watched.bed
    until(lambda: values(bed, "tb:replica:port_open"), dict.fromkeys("012", "1"), 60)
    until(lambda: values(bed, "tb_replica_status"), dict.fromkeys("012", "0"), 60)
    assert {one["value"][1] for one in query(bed, "up")} == {"1"}
    assert firing(bed) == set()


def test_nothing_listens_but_what_was_asked_for(watched: Site) -> None:
    host = watched.bed.monitor
    assert listeners(host) == {
        f"udp {host.ip}:{STATSD_PORT}",
        f"tcp 127.0.0.1:{PROMETHEUS_PORT}",
        "tcp 127.0.0.1:9102",
        "tcp 127.0.0.1:9115",
    }
    for machine in (watched.bed.outsider, watched.bed.client, watched.bed.hosts[0]):
        for port in (PROMETHEUS_PORT, 9102, 9115):
            assert not machine.reaches(host.ip, port)


def test_the_replicas_let_the_monitoring_host_in_and_still_no_outsider(watched: Site) -> None:
    for host in watched.bed.hosts:
        assert watched.bed.monitor.reaches(host.ip, PORT)
        assert not watched.bed.outsider.reaches(host.ip, PORT)


def test_the_monitoring_host_alone_reads_the_servers_node_exporter(watched: Site) -> None:
    bed = watched.bed
    for host in bed.hosts:
        reaching = {m.name for m in bed.machines.values() if m.reaches(host.ip, EXPORTER_PORT)}
        assert reaching == {"monitor", host.name}


def test_the_servers_disks_and_clocks_are_seen(watched: Site) -> None:
    bed = watched.bed
    instances = {f"{host.ip}:{EXPORTER_PORT}" for host in bed.hosts}

    def seen(metric: str) -> set[str]:
        return {one["metric"]["instance"] for one in query(bed, metric)}

    for metric in ("node_filesystem_avail_bytes", "node_timex_sync_status"):
        until(lambda metric=metric: seen(metric), instances, 30)  # type: ignore[misc]


def test_a_server_s_full_disk_fires_its_alert_which_ends_when_there_is_room(watched: Site) -> None:
    bed, host = watched.bed, watched.bed.hosts[0]
    # On a server systemd shares what is mounted below /; in a container it leaves that alone.
    host.read(f"mount --make-rshared /; systemctl restart {monitoring_host.unit(exporter.UNIT)}")
    # Mounted after the exporter was started, and seen by it all the same.
    host.read(f"mkdir -p {DISK}; mount -t tmpfs -o size=64m small {DISK}")
    host.read(f"head -c 60M /dev/zero >{DISK}/ballast")
    fired = until(lambda: full_disks(bed), {(f"{host.ip}:{EXPORTER_PORT}", DISK)}, FIRES_S)
    host.read(f"rm {DISK}/ballast")
    ended = until(lambda: full_disks(bed), set(), ENDS_S)
    host.read(f"umount {DISK}")
    print(f"disk: TigerBeetleDiskNearlyFull after {fired:.0f} s, ended after {ended:.0f} s")


def test_an_outsider_can_silence_no_alarm_and_a_client_can(watched: Site) -> None:
    bed = watched.bed

    def send(sender: str) -> None:
        line = f"tb.of_{sender}:1|g|#cluster:{'0' * 32},replica:9"
        bed.machines[sender].read(SEND.format(line=line, ip=bed.monitor.ip, port=STATSD_PORT))

    def heard() -> tuple[bool, str]:
        send("client")
        scraped = bed.monitor.read("curl -sf http://127.0.0.1:9102/metrics")
        return "tb_of_client" in scraped, scraped

    send("outsider")  # first: once the client is heard, it would have been
    scraped = wait_until(heard, what="the client to be heard", timeout_s=200)
    assert "tb_of_outsider" not in scraped
    assert "tb_replica_status" in scraped


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_is_confined(watched: Site, unit: str) -> None:
    host = watched.bed.monitor
    shown = host.read(f"systemctl show --property={','.join(SETTINGS)} {unit}")
    assert dict(line.split("=", 1) for line in shown.splitlines()) == SETTINGS
    allowed = host.read(f"systemctl show --property=SystemCallFilter --value {unit}").split()
    assert allowed
    assert {"mount", "ptrace", "reboot", "bpf", "init_module", "setuid"}.isdisjoint(allowed)
    # What the kernel made of it.
    pid = host.read(f"systemctl show --property=MainPID --value {unit}").strip()
    status = dict(line.split(":", 1) for line in host.read(f"cat /proc/{pid}/status").splitlines())
    assert status["Uid"].split()[0] != "0"
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert {int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {0}
    score = host.read(f"systemd-analyze security --no-pager {unit} | tail -1")
    print(score)
    assert float(score.split(": ")[1].split()[0]) < 2.5, score


def test_the_node_exporter_is_confined_but_for_what_it_measures(watched: Site) -> None:
    seen = {"ProtectHome": "read-only", "PrivateDevices": "no", "ProtectClock": "no"}
    unit = monitoring_host.unit(exporter.UNIT)
    for host in watched.bed.hosts:
        shown = host.read(f"systemctl show --property={','.join(SETTINGS)} {unit}")
        assert dict(line.split("=", 1) for line in shown.splitlines()) == SETTINGS | seen
        assert host.inside(f"systemctl is-enabled {exporter.PACKAGE}").stdout.strip() == "masked"
    print(watched.bed.hosts[0].read(f"systemd-analyze security --no-pager {unit} | tail -1"))


def test_a_second_deploy_of_the_servers_changes_nothing(watched: Site) -> None:
    done = watched.up()
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []


def test_the_packages_own_services_were_never_started(watched: Site) -> None:
    host = watched.bed.monitor
    for package in monitoring_host.PACKAGES:
        assert host.inside(f"systemctl is-enabled {package}").stdout.strip() == "masked"
        assert host.read(f"journalctl --quiet --unit={package}") == ""


def test_a_second_monitor_up_changes_nothing_and_restarts_nothing(watched: Site) -> None:
    before = lives(watched.bed.monitor)
    done = watched.run("make", "monitor-up")
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    assert lives(watched.bed.monitor) == before


def test_its_status_is_read_from_here_through_ssh(watched: Site) -> None:
    done = watched.run("make", "monitor-status")
    assert "tigerbeetle-port" in done.stdout, said(done)
    assert "0 of" in done.stdout.splitlines()[-1]
    assert done.returncode == 0


def test_a_planned_stop_is_announced_from_a_machine_that_the_firewall_keeps_out(
    watched: Site,
) -> None:
    def planned() -> set[str]:
        return set(values(watched.bed, "tb:replica:planned_stop"))

    listed = {"clients": [f"{watched.bed.client.ip}/32"]}
    with_us = dict(watched.settings)
    watched.write(**listed)
    try:
        assert watched.run("make", "monitor-up").returncode == 0
        done = watched.run("make", "planned-stop", "REPLICA=1")
        assert done.returncode == 0, said(done)
        until(planned, {"1"}, 30)
        assert watched.run("make", "planned-stop", "REPLICA=1", "END=yes").returncode == 0
        until(planned, set(), 30)
    finally:
        watched.settings = with_us
        watched.write()
    assert watched.run("make", "monitor-up").returncode == 0


def test_a_replica_that_is_stuck_fires_its_alert_which_ends_after_it_goes_on(watched: Site) -> None:
    bed = watched.bed
    bed.hosts[1].read("pkill -STOP -x tigerbeetle")
    try:
        fired = until(lambda: firing(bed), {("TigerBeetleReplicaWedged", "1")}, FIRES_S)
    finally:
        bed.hosts[1].read("pkill -CONT -x tigerbeetle")
    ended = until(lambda: firing(bed), set(), ENDS_S)
    print(f"SIGSTOP: TigerBeetleReplicaWedged after {fired:.0f} s, ended after {ended:.0f} s")


def test_a_replica_that_is_killed_fires_its_alert_which_ends_after_it_is_back(
    watched: Site,
) -> None:
    bed, unit = watched.bed, "tigerbeetle-2.service"
    host = bed.hosts[2]
    host.read(f"systemctl kill --signal=KILL {unit}; systemctl stop {unit}")
    fired = until(lambda: firing(bed), {("TigerBeetleReplicaDown", "2")}, FIRES_S)
    told = bed.client.read("journalctl --quiet --output=cat --unit=alertmanager")
    assert "/api/v2/alerts" in told
    assert "Replica 2 does not listen" in told
    done = watched.run("make", "monitor-status")
    assert done.returncode != 0
    assert "TigerBeetleReplicaDown: Replica 2 does not listen" in done.stdout
    host.read(f"systemctl start {unit}")
    ended = until(lambda: firing(bed), set(), ENDS_S)
    print(f"SIGKILL: TigerBeetleReplicaDown after {fired:.0f} s, ended after {ended:.0f} s")


def test_what_has_died_is_started_again(watched: Site) -> None:
    host = watched.bed.monitor
    before = lives(host)
    host.read(f"systemctl kill --signal=KILL {' '.join(UNITS)}")
    until(lambda: host.inside(f"systemctl is-active {' '.join(UNITS)}").returncode, 0, 30)
    assert lives(host) != before
    until(lambda: values(watched.bed, "tb_replica_status"), dict.fromkeys("012", "0"), 60)


def test_a_changed_setting_is_followed_and_an_interrupted_start_is_completed(watched: Site) -> None:
    host = watched.bed.monitor
    host.read(
        "systemctl stop tigerbeetle-blackbox; sed -i '$a # by hand' "
        "/etc/tigerbeetle/monitoring/rules/states.yml"
    )
    watched.write(monitoring_bind=host.ip)
    try:
        done = watched.run("make", "monitor-up")
        assert done.returncode == 0, said(done)[-4000:]
        assert f"tcp {host.ip}:{PROMETHEUS_PORT}" in listeners(host)
        assert f"tcp 127.0.0.1:{PROMETHEUS_PORT}" not in listeners(host)
        assert host.inside("systemctl is-active tigerbeetle-blackbox").returncode == 0
        assert "by hand" not in host.read("cat /etc/tigerbeetle/monitoring/rules/states.yml")
    finally:
        watched.settings.pop("monitoring_bind")
        watched.write()
    assert watched.run("make", "monitor-up").returncode == 0
    assert f"tcp 127.0.0.1:{PROMETHEUS_PORT}" in listeners(host)


def test_the_monitoring_of_another_cluster_is_refused(watched: Site) -> None:
    before = lives(watched.bed.monitor)
    watched.variables["CLUSTER_ID"] = str(2**99 + 1)
    watched.write()
    try:
        done = watched.run("make", "monitor-up")
    finally:
        del watched.variables["CLUSTER_ID"]
        watched.write()
    assert done.returncode != 0
    assert "expected no monitoring of another cluster" in said(done)
    assert lives(watched.bed.monitor) == before


def test_monitor_down_stops_it_over_a_boot_too_and_keeps_what_is_stored(watched: Site) -> None:
    host = watched.bed.monitor
    done = watched.run("make", "monitor-down")
    assert done.returncode == 0, said(done)[-4000:]
    assert listeners(host) == set()
    assert changes(watched.run("make", "monitor-down")) == []
    host.switch_off()
    host.switch_on()
    assert listeners(host) == set()
    assert host.read("ls /var/lib/private/tigerbeetle-prometheus") != ""
