"""The firewall on real kernels: who gets in, what stays, and that a mistake shuts nobody out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial

import pytest

from cluster.tigerbeetle.waiting import wait_until
from tasks.firewall import TRIAL_S
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import PORT, Site, changes, said

pytestmark = [
    pytest.mark.remote,
    pytest.mark.long,
    pytest.mark.random_order(disabled=True),  # without a firewall, with one, and without again
]

OTHER_PORT = 3333

LISTENER = """
import socketserver, sys
class Print(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            print(line.decode(), end="")
socketserver.ThreadingTCPServer(("0.0.0.0", int(sys.argv[1])), Print).serve_forever()
"""

#: nft, but every new file of rules brings a rule that cuts SSH: a mistake as an operator makes it.
MISTAKEN_NFT = """\
#!/bin/sh
/usr/sbin/nft.real "$@" || exit
case "$*" in
  "-f /etc/tigerbeetle/firewall.nft.next")
    exec /usr/sbin/nft.real insert rule inet tigerbeetle input tcp dport 22 drop ;;
esac
"""


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """Three hosts on which something listens on the replicas' port, and on another."""
    for host in bed.hosts:
        listen(host)
    return Site(bed).write()


@pytest.fixture(scope="module")
def walled(site: Site) -> Iterator[Site]:
    """The same, behind the firewall."""
    done = site.pyinfra("tasks.firewall.apply")
    assert done.returncode == 0, said(done)
    yield site
    site.pyinfra("tasks.firewall.remove")


def listen(host: Machine) -> None:
    """Accept connections on two ports, and print what they bring into the journal."""
    for port in (PORT, OTHER_PORT):
        host.read(f"systemd-run --quiet --unit=listen-{port} python3 -uc '{LISTENER}' {port}")
        wait_until(
            partial(listens, host, port), what=f"{host.name} to listen at {port}", timeout_s=60
        )


def listens(host: Machine, port: int) -> tuple[bool, str]:
    return host.reaches(host.ip, port), "nobody listens"


def who_reaches(site: Site, host: Machine, port: int = PORT) -> set[str]:
    return {m.name for m in site.bed.machines.values() if m.reaches(host.ip, port)}


EVERYBODY = {"host-0", "host-1", "host-2", "client", "outsider"}
LISTED = EVERYBODY - {"outsider"}


def test_without_a_firewall_everybody_reaches_the_port(site: Site) -> None:
    for host in site.bed.hosts:
        assert who_reaches(site, host) == EVERYBODY


def test_replicas_and_a_listed_client_reach_the_port_and_an_outsider_does_not(walled: Site) -> None:
    for host in walled.bed.hosts:
        assert who_reaches(walled, host) == LISTED


def test_what_was_dropped_is_counted(walled: Site) -> None:
    host = walled.bed.hosts[0]
    assert not walled.bed.outsider.reaches(host.ip, PORT)
    rules = host.read("nft list chain inet tigerbeetle input")
    counted = re.search(r"counter packets (\d+)", rules)
    assert counted
    assert int(counted[1]) > 0


def test_ssh_and_every_other_port_are_as_they_were(walled: Site) -> None:
    for host in walled.bed.hosts:
        assert who_reaches(walled, host, 22) == EVERYBODY
        assert who_reaches(walled, host, OTHER_PORT) == EVERYBODY


def test_the_host_reaches_its_own_port_as_a_tunnel_does(walled: Site) -> None:
    host = walled.bed.hosts[0]
    assert host.ssh(f"nc -z -w 1 {host.ip} {PORT}").returncode == 0


def test_a_second_run_changes_nothing(walled: Site) -> None:
    assert changes(walled.pyinfra("tasks.firewall.apply")) == []


def test_what_an_interrupted_run_has_written_is_told_to_systemd_by_the_next(walled: Site) -> None:
    host, unread = walled.bed.hosts[0], "systemctl show --value --property=NeedDaemonReload"
    path = "/etc/systemd/system/nftables.service.d/tigerbeetle.conf"
    host.read(
        f"systemctl start nftables.service && mv {path} /root/kept && systemctl daemon-reload"
    )
    host.read(f"mv /root/kept {path}")
    assert host.read(f"{unread} nftables.service").strip() == "yes"
    done = walled.pyinfra("tasks.firewall.apply")
    assert done.returncode == 0, said(done)
    assert host.read(f"{unread} nftables.service").strip() == "no"
    assert changes(walled.pyinfra("tasks.firewall.apply")) == []


def test_it_outlives_a_reboot(walled: Site) -> None:
    host = walled.bed.hosts[2]
    host.switch_off()
    host.switch_on()
    listen(host)
    assert who_reaches(walled, host) == LISTED


@pytest.mark.parametrize("action", ["start", "reload", "restart"])
def test_it_is_back_when_nftables_has_flushed_all_rules(walled: Site, action: str) -> None:
    host = walled.bed.hosts[1]
    host.read(f"systemctl {action} nftables.service")
    assert not walled.bed.outsider.reaches(host.ip, PORT)
    assert walled.bed.client.reaches(host.ip, PORT)


def test_a_flushed_table_is_loaded_again_by_the_next_run(walled: Site) -> None:
    host = walled.bed.hosts[0]
    host.read("nft delete table inet tigerbeetle")
    assert walled.bed.outsider.reaches(host.ip, PORT)
    done = walled.pyinfra("tasks.firewall.apply")
    assert done.returncode == 0, said(done)
    assert not walled.bed.outsider.reaches(host.ip, PORT)


def unanswered(client: Machine, host: Machine) -> tuple[bool, str]:
    """Several lines wait in the client's kernel for the host to take them, or it has given up."""
    connections = client.read(f"ss -Htn state established dst {host.ip} dport = :{PORT}")
    queued = [int(line.split()[1]) for line in connections.splitlines()]
    return not queued or max(queued) >= 5 * len("still-here\n"), connections


def test_a_client_that_is_no_longer_listed_loses_the_connection_that_it_has(walled: Site) -> None:
    bed = walled.bed
    host = bed.hosts[0]
    # Lines arrive as long as the connection lives.
    bed.client.read(
        "systemd-run --quiet --unit=talk sh -c "
        f"'while echo still-here; do sleep 0.2; done | nc {host.ip} {PORT}'"
    )
    heard = f"journalctl -u listen-{PORT} -o cat | grep -c still-here || true"
    wait_until(lambda: (int(host.read(heard)) > 0, "silence"), what="the client", timeout_s=200)
    listed = walled.settings
    try:
        walled.write(clients=[f"{bed.control}/32"])
        assert walled.pyinfra("tasks.firewall.apply").returncode == 0
        before = host.read(heard)
        wait_until(lambda: unanswered(bed.client, host), what="lines to go nowhere", timeout_s=200)
        assert host.read(heard) == before
        assert who_reaches(walled, host) == LISTED - {"client"}
    finally:
        bed.client.read("systemctl stop talk")
        walled.settings = {k: v for k, v in listed.items() if k != "clients"}
        walled.write()
        assert walled.pyinfra("tasks.firewall.apply").returncode == 0


def test_rules_that_cut_ssh_are_taken_back_by_the_server_itself(walled: Site) -> None:
    host = walled.bed.hosts[0]
    rules = host.read("cat /etc/tigerbeetle/firewall.nft")
    host.read("mv /usr/sbin/nft /usr/sbin/nft.real")
    host.read(f"cat >/usr/sbin/nft <<'END'\n{MISTAKEN_NFT}END\nchmod 755 /usr/sbin/nft")
    try:
        walled.write(clients=["192.0.2.0/24"])
        started = time.monotonic()
        done = walled.pyinfra("tasks.firewall.apply")
        assert done.returncode != 0
        assert "firewall: expected a new SSH connection to get in" in said(done)
        # By the engine: SSH is shut out now, and so is the disk unchanged.
        assert host.read("cat /etc/tigerbeetle/firewall.nft") == rules
        wait_until(
            lambda: (host.ssh("true").returncode == 0, "no answer"),
            what="SSH to get in again",
            timeout_s=TRIAL_S * 10,
        )
        assert time.monotonic() - started > TRIAL_S / 2, "SSH was never cut: the mistake was none"
        assert "tcp dport 22 drop" not in host.read("nft list table inet tigerbeetle")
        assert walled.bed.client.reaches(host.ip, PORT)
    finally:
        host.read("mv /usr/sbin/nft.real /usr/sbin/nft")
        walled.settings.pop("clients")
        walled.write()
    again = walled.pyinfra("tasks.firewall.apply")
    assert again.returncode == 0, said(again)
    assert who_reaches(walled, host) == LISTED


def test_rules_that_the_kernel_refuses_change_nothing(walled: Site) -> None:
    host = walled.bed.hosts[1]
    before = host.read("nft list table inet tigerbeetle; cat /etc/tigerbeetle/firewall.nft")
    host.read("mv /usr/sbin/nft /usr/sbin/nft.real")
    host.read(
        'printf \'#!/bin/sh\\ncase "$*" in -c*) echo no such thing >&2; exit 1;; esac\\n'
        'exec /usr/sbin/nft.real "$@"\\n\' >/usr/sbin/nft && chmod 755 /usr/sbin/nft'
    )
    try:
        walled.write(clients=["192.0.2.0/24"])
        done = walled.pyinfra("tasks.firewall.apply")
        assert done.returncode != 0
        assert "no such thing" in said(done)
    finally:
        host.read("mv /usr/sbin/nft.real /usr/sbin/nft")
        walled.settings.pop("clients")
        walled.write()
    assert host.read("nft list table inet tigerbeetle; cat /etc/tigerbeetle/firewall.nft") == before
    assert walled.pyinfra("tasks.firewall.apply").returncode == 0


def test_everybody_is_refused_as_a_client_before_any_change(walled: Site) -> None:
    host = walled.bed.hosts[0]
    before = host.read("nft list table inet tigerbeetle")
    walled.write(clients=["0.0.0.0/0"])
    try:
        done = walled.pyinfra("tasks.firewall.apply")
    finally:
        walled.settings.pop("clients")
        walled.write()
    assert done.returncode != 0
    assert "clients: expected the networks of your clients" in said(done)
    assert host.read("nft list table inet tigerbeetle") == before


def test_taken_away_it_leaves_nothing_and_everybody_gets_in(walled: Site) -> None:
    done = walled.pyinfra("tasks.firewall.remove")
    assert done.returncode == 0, said(done)
    assert changes(walled.pyinfra("tasks.firewall.remove")) == []
    for host in walled.bed.hosts:
        assert who_reaches(walled, host) == EVERYBODY
        assert "tigerbeetle" not in host.read("nft list tables")
        assert host.read("find /etc -name '*firewall*' -path '*tigerbeetle*'") == ""
        assert host.inside("systemctl cat tigerbeetle-firewall").returncode != 0
