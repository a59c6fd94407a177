"""What a deploy to servers refuses: in one clear line, and before anything on any host is changed.

The emulator stands in for TigerBeetle: what is refused is refused before a server program runs. One
refusal of each kind is in the short tests: of all hosts, of one, of two together, of the inventory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.runtimes import layout
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import docker
from tests.remote.bed import Bed
from tests.remote.logins import cut
from tests.remote.machine import Machine
from tests.remote.site import PORT, Site, changes, prints, said

pytestmark = [
    pytest.mark.remote,
    pytest.mark.slow,
    pytest.mark.random_order(disabled=True),  # bare hosts first, then deployed ones
]


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """Three bare hosts and an inventory for them; nothing is deployed."""
    return Site(bed).with_emulator()


@pytest.fixture(scope="module")
def deployed(site: Site) -> Site:
    """The same, deployed for the first time."""
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    return site


@contextmanager
def having(site: Site, **settings: Any) -> Iterator[None]:
    """The inventory says something else for a while."""
    before = dict(site.settings)
    site.write(**settings)
    try:
        yield
    finally:
        site.settings = before
        site.write()


def assert_refused(site: Site, *words: str, bootstrap: bool = True, hosts: int = 3) -> None:
    """A deploy fails with these words, and leaves the first ``hosts`` hosts as they were."""
    watched = site.bed.hosts[:hosts]
    before = [prints(host) for host in watched]
    done = site.up(bootstrap=bootstrap)
    after = [prints(host) for host in watched]
    assert done.returncode != 0
    for word in words:
        assert word in said(done), said(done)[-3000:]
    assert [now ^ then for now, then in zip(after, before, strict=True)] == [set()] * hosts


def shadow(host: Machine, program: str, script: str) -> None:
    """Let a host's ``program`` be this script: what cannot be had in a container."""
    host.read(f"cat >/usr/local/bin/{program} <<'END'\n#!/bin/sh\n{script}\nEND")
    host.read(f"chmod 755 /usr/local/bin/{program}")


def unshadow(host: Machine, program: str) -> None:
    host.read(f"rm /usr/local/bin/{program}")


def test_empty_hosts_are_not_formatted_unless_bootstrap_is_asked_for(site: Site) -> None:
    assert_refused(site, "found none on any server", "BOOTSTRAP=yes", bootstrap=False)


@pytest.mark.long
def test_a_data_directory_in_memory_is_refused(site: Site) -> None:
    with having(site, data_dir="/run/tigerbeetle"):
        assert_refused(site, "expected /run/tigerbeetle on a disk", "tmpfs, which is memory")


@pytest.mark.long
def test_a_file_system_without_direct_io_is_refused(site: Site) -> None:
    host = site.bed.hosts[1]
    shadow(host, "dd", 'case "$*" in *oflag=direct*) exit 1;; esac; exec /usr/bin/dd "$@"')
    try:
        assert_refused(site, "replica 1's server: expected direct I/O")
    finally:
        unshadow(host, "dd")


@pytest.mark.long
def test_a_port_that_is_taken_is_refused_with_its_holder(site: Site) -> None:
    host = site.bed.hosts[1]
    host.read(f"systemd-run --quiet --unit=taken nc -lk {host.ip} {PORT}")
    try:
        wait_until(
            lambda: (host.reaches(host.ip, PORT), "refused"), what="nc to listen", timeout_s=100
        )
        assert_refused(site, f"expected {host.ip}:{PORT} to be free, found pid ", "(nc) listening")
    finally:
        host.read("systemctl stop taken")


def test_a_host_that_does_not_answer_is_refused(site: Site) -> None:
    site.bed.hosts[2].switch_off()
    try:
        assert_refused(site, "tigerbeetle-2", hosts=2)
    finally:
        site.bed.hosts[2].switch_on()


@pytest.mark.long
def test_a_host_with_another_ssh_key_than_the_known_one_is_refused(site: Site) -> None:
    known = site.bed.known_hosts.read_text()
    other = known.splitlines()[0].split()[1:]
    ip = site.bed.hosts[1].ip
    kept = [line for line in known.splitlines() if not line.startswith(f"{ip} ")]
    site.bed.known_hosts.write_text("\n".join([*kept, f"{ip} {' '.join(other)}\n"]))
    cut(site.bed.hosts[1])  # the former connection is with the server that it knew
    try:
        assert_refused(site, "tigerbeetle-1")
    finally:
        site.bed.known_hosts.write_text(known)


def test_a_peer_behind_a_firewall_is_refused(site: Site) -> None:
    blocked, peer = site.bed.hosts[1], site.bed.hosts[0]
    blocked.read(
        "nft 'add table inet other; add chain inet other in { type filter hook input priority 0; };"
        f" add rule inet other in ip saddr {peer.ip} tcp dport {PORT} drop'"
    )
    try:
        assert_refused(site, "replica 0's server: expected to reach replica 1", "within 3 s")
    finally:
        blocked.read("nft delete table inet other")


@pytest.mark.long
def test_a_clock_that_no_service_keeps_is_refused(site: Site) -> None:
    hosts = site.bed.hosts
    for index, host in enumerate(hosts):
        shadow(host, "timedatectl", f"echo {'no' if index == 1 else 'yes'}")
    try:
        with having(site, check_clock=True):
            assert_refused(site, "replica 1's server: expected a clock that a time service keeps")
    finally:
        for host in hosts:
            unshadow(host, "timedatectl")


@pytest.mark.long
def test_clocks_that_differ_are_refused(site: Site) -> None:
    hosts = site.bed.hosts
    for host in hosts:
        shadow(host, "timedatectl", "echo yes")
    shadow(hosts[2], "date", 'exec /usr/bin/date -d "+60 seconds" "$@"')
    try:
        with having(site, check_clock=True):
            assert_refused(site, "replica 2's server: expected a clock within 5 s", "s ahead")
    finally:
        unshadow(hosts[2], "date")
        for host in hosts:
            unshadow(host, "timedatectl")


@pytest.mark.long
def test_one_host_for_two_replicas_is_refused(site: Site) -> None:
    first, second, _ = (host.ip for host in site.bed.hosts)
    with having(site, ssh_hosts=(first, second, second)):
        assert_refused(site, "ssh_hosts: expected a server of its own for each replica")


def test_hosts_in_another_order_than_their_addresses_are_refused(site: Site) -> None:
    first, second, third = (host.ip for host in site.bed.hosts)
    with having(site, ssh_hosts=(second, first, third)):
        assert_refused(site, "which is replica ", "put ssh_hosts into replica order")


@pytest.mark.long
def test_a_lost_data_file_is_refused_and_points_to_recover(deployed: Site) -> None:
    host, path = deployed.bed.hosts[1], layout.data_path(deployed.deployment, 1)
    host.read(f"systemctl stop tigerbeetle-1 && mv {path} /root/kept")
    try:
        for bootstrap in (False, True):
            assert_refused(deployed, "recover", bootstrap=bootstrap)
    finally:
        host.read(f"mv /root/kept {path} && systemctl start tigerbeetle-1")


@pytest.mark.long
def test_the_data_file_of_another_replica_is_refused(deployed: Site) -> None:
    own, other = deployed.bed.hosts[1], deployed.bed.hosts[2]
    path = layout.data_path(deployed.deployment, 1)
    foreign = layout.data_path(deployed.deployment, 2)
    scratch = str(deployed.bed.directory / "foreign")
    assert docker("cp", f"{other.container}:{foreign}", scratch).returncode == 0
    own.read(f"systemctl stop tigerbeetle-1 && mv {path} /root/kept")
    assert docker("cp", scratch, f"{own.container}:{path}").returncode == 0
    own.read(f"chown tigerbeetle: {path}")
    try:
        assert_refused(deployed, "replica 1", "replica 2 of 3", bootstrap=False)
    finally:
        own.read(f"rm {path}; mv /root/kept {path} && systemctl start tigerbeetle-1")


@pytest.mark.long
def test_the_data_file_of_another_cluster_is_refused(deployed: Site) -> None:
    own = deployed.bed.hosts[1]
    path = layout.data_path(deployed.deployment, 1)
    program = own.read(f"ls {layout.PROGRAMS}/*/tigerbeetle").split()[0]
    own.read(f"systemctl stop tigerbeetle-1 && mv {path} /root/kept")
    own.read(f"{program} format --cluster=77 --replica=1 --replica-count=3 {path}")
    own.read(f"chown tigerbeetle: {path}")
    try:
        assert_refused(deployed, "cluster 77", bootstrap=False)
    finally:
        own.read(f"rm {path}; mv /root/kept {path} && systemctl start tigerbeetle-1")


@pytest.mark.long
def test_after_all_refusals_the_cluster_is_as_it_was_deployed(deployed: Site) -> None:
    done = deployed.up()
    assert done.returncode == 0, said(done)[-3000:]
    assert changes(deployed.up()) == []
