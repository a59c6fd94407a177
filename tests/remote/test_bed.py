"""The test bed is what it says: else what is shown on it shows nothing."""

from __future__ import annotations

import subprocess

import pytest

from tests.remote.bed import Bed
from tests.remote.machine import ADMIN

pytestmark = [pytest.mark.remote, pytest.mark.long]


def test_systemd_is_the_first_process_and_nothing_has_failed(bed: Bed) -> None:
    for machine in bed.machines.values():
        assert machine.read("cat /proc/1/comm") == "systemd\n"
        assert machine.read("systemctl list-units --failed --plain --no-legend") == ""


def test_root_and_the_admin_log_in_by_key(bed: Bed) -> None:
    for machine in bed.machines.values():
        assert machine.ssh("id -un").stdout == "root\n"
        assert machine.ssh("sudo -n id -un", user=ADMIN).stdout == "root\n"


def test_nobody_logs_in_without_the_key(bed: Bed) -> None:
    keyless = ["-o", "PubkeyAuthentication=no"]
    for user in ("root", ADMIN):
        done = subprocess.run(
            ["ssh", *keyless, "-F", str(bed.ssh_config), "-l", user, bed.hosts[0].name, "true"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 255
        assert "Permission denied (publickey)" in done.stderr


def test_a_server_with_another_key_is_not_trusted(bed: Bed) -> None:
    known = bed.known_hosts.read_text()
    key = bed.hosts[1].read("cat /etc/ssh/ssh_host_ed25519_key.pub")
    bed.known_hosts.write_text(f"{bed.hosts[0].ip} {key}")
    try:
        done = bed.hosts[0].ssh("true")
        assert done.returncode == 255
        assert "verification failed" in done.stderr
    finally:
        bed.known_hosts.write_text(known)


def test_the_hosts_hold_nothing_of_ours(bed: Bed) -> None:
    for host in bed.hosts:
        assert host.inside("id tigerbeetle").returncode != 0
        assert host.inside("command -v tigerbeetle docker").returncode != 0
        assert host.read("find / -xdev -name '*tigerbeetle*' -not -path '/proc/*'") == ""


def test_every_machine_reaches_every_other(bed: Bed) -> None:
    for machine in bed.machines.values():
        for other in bed.machines.values():
            assert machine.reaches(other.ip, 22)


def test_a_port_where_nobody_listens_is_not_reached(bed: Bed) -> None:
    assert not bed.outsider.reaches(bed.hosts[0].ip, 3000)


def test_files_survive_a_power_cut_and_what_is_in_memory_does_not(bed: Bed) -> None:
    host = bed.hosts[2]
    host.read("echo kept >/root/kept; echo lost >/run/lost")
    host.switch_off()
    assert host.inside("true").returncode != 0
    host.switch_on()
    assert host.read("cat /root/kept") == "kept\n"
    assert host.inside("cat /run/lost").returncode != 0
    assert host.ssh("true").returncode == 0


def test_a_renewed_host_has_forgotten_everything_but_its_address(bed: Bed) -> None:
    host = bed.hosts[1]
    host.read("echo old >/root/old")
    before = host.read("cat /etc/ssh/ssh_host_ed25519_key.pub")
    bed.renew(host.name)
    assert host.inside("cat /root/old").returncode != 0
    assert host.read("cat /etc/ssh/ssh_host_ed25519_key.pub") != before
    assert host.ssh("hostname -I").stdout.split() == [host.ip]
