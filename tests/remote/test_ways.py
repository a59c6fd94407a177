"""The ways by which servers are reached: each row of the table in docs/servers.md.

With the emulator, deployed once: each way leads to the same cluster. The tests run in any order.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.remote.bed import Bed
from tests.remote.logins import counted, cut, sshd
from tests.remote.machine import ADMIN
from tests.remote.site import Site, changes, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.long]

#: Everything is left to the ssh_config.
ALIASES = {"ssh_user": None, "ssh_port": None, "ssh_key": "", "ssh_known_hosts_file": ""}
PASSPHRASE = "of a test alone"
_SSHD = "/etc/ssh/sshd_config"


@pytest.fixture(scope="module")
def deployed(bed: Bed) -> Site:
    made = Site(bed).with_emulator()
    done = made.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    return made


@pytest.fixture
def site(deployed: Site) -> Iterator[Site]:
    """The cluster, by a way of the test's own; all connections are new."""
    usual = dict(deployed.settings)
    for host in deployed.bed.hosts:
        cut(host)
    yield deployed
    deployed.settings, deployed.exported = usual, {}
    deployed.write()


def assert_all_works(site: Site) -> None:
    """What deploys, what reads through a tunnel, and what verifies all go this way."""
    site.write(reach="tunnel")
    done = site.up()
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    done = site.run("python", "-m", "cluster", "status")
    assert done.returncode == 0, said(done)
    done = site.run("pytest", "tests/infra/test_settings.py", "--inventory", str(site.inventory))
    assert done.returncode == 0, said(done)[-4000:]


def test_each_host_has_its_own_user_and_port(site: Site) -> None:
    first, second, third = site.bed.hosts
    site.settings["ssh_hosts"] = [first.ip, f"root@{second.ip}", f"{third.ip}:2222"]
    known = site.bed.known_hosts.read_text()
    key = next(line for line in known.splitlines() if line.startswith(f"{third.ip} "))
    site.bed.known_hosts.write_text(f"{known}[{third.ip}]:2222{key.removeprefix(third.ip)}\n")
    with sshd(third, "Port 22", "Port 2222"):
        assert_all_works(site)
    assert "Accepted publickey for root" in second.read("journalctl -u ssh -o cat -n 200")


def ssh_config(site: Site, directory: Path, *lines: str, **of_all: str) -> Path:
    """Aliases of the three servers; ``of_all`` is for each."""
    written = [*lines]
    for index, host in enumerate(site.bed.hosts):
        written += [f"Host db{index}", f"  HostName {host.ip}"]
        written += [f"  {name} {value}" for name, value in of_all.items()]
    file = directory / "ssh_config"
    file.write_text("\n".join([*written, ""]))
    return file


def usual(site: Site) -> dict[str, str]:
    return {
        "User": ADMIN,
        "IdentityFile": str(site.bed.key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(site.bed.known_hosts),
    }


def by_alias(site: Site, config: Path) -> Mapping[str, Any]:
    return ALIASES | {"ssh_hosts": ["db0", "db1", "db2"], "ssh_config_file": str(config)}


def test_an_alias_of_ssh_config_brings_user_key_and_address(site: Site, tmp_path: Path) -> None:
    site.settings |= by_alias(site, ssh_config(site, tmp_path, **usual(site)))
    assert_all_works(site)


def test_an_alias_may_ask_for_what_a_person_wants_and_a_program_does_not(
    site: Site, tmp_path: Path
) -> None:
    more = {
        "RequestTTY": "force",
        "ControlMaster": "auto",
        "ControlPath": f"{tmp_path}/%C",
        "LocalForward": "127.0.0.1:1 127.0.0.1:1",
        "ForwardAgent": "yes",
    }
    site.settings |= by_alias(site, ssh_config(site, tmp_path, **usual(site), **more))
    assert_all_works(site)


def test_a_jump_host_leads_to_servers_that_nobody_else_reaches(site: Site, tmp_path: Path) -> None:
    jump, known = site.bed.client, site.bed.known_hosts
    first = ["Host jump", f"  HostName {jump.ip}"]
    first += [f"  {name} {value}" for name, value in usual(site).items()]
    config = ssh_config(site, tmp_path, *first, ProxyJump="jump", **usual(site))
    site.settings |= by_alias(site, config)
    assert f"{jump.ip} " in known.read_text()
    with ExitStack() as stack:
        for host in site.bed.hosts:
            host.read(
                "nft 'add table inet walled; add chain inet walled in { type filter hook input"
                f" priority -5; }}; add rule inet walled in ip saddr {site.bed.control} drop'"
            )
            stack.callback(host.read, "nft delete table inet walled")
        assert_all_works(site)
    log = site.bed.hosts[0].read("journalctl -u ssh -o cat | grep '^Accepted publickey' | tail -1")
    assert f" from {jump.ip} " in log


@pytest.fixture
def locked_key(site: Site, tmp_path: Path) -> Iterator[Path]:
    """A key with a passphrase that opens all servers."""
    key = tmp_path / "locked"
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", str(key)]
    subprocess.run(made, check=True, timeout=60)
    public = key.with_suffix(".pub").read_text().strip()
    for host in site.bed.hosts:
        host.read(f"echo '{public}' >>/home/{ADMIN}/.ssh/authorized_keys")
    yield key
    for host in site.bed.hosts:
        host.read(f"sed -i '$d' /home/{ADMIN}/.ssh/authorized_keys")


@pytest.fixture
def agent(locked_key: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An agent that holds it, as the variable by which it is found."""
    socket, askpass = tmp_path / "a", tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    askpass.chmod(0o700)
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE) as holds:
        assert holds.stdout
        holds.stdout.readline()
        found = {"SSH_AUTH_SOCK": str(socket)}
        asks = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        subprocess.run(
            ["ssh-add", str(locked_key)],
            env=os.environ | found | asks,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        try:
            yield found
        finally:
            holds.terminate()


@pytest.mark.parametrize("is_named", [True, False])
def test_a_key_with_a_passphrase_is_used_from_an_agent(
    site: Site, locked_key: Path, agent: dict[str, str], is_named: bool
) -> None:
    site.exported |= agent
    site.settings["ssh_key"] = str(locked_key) if is_named else ""
    assert_all_works(site)


def test_a_key_with_a_passphrase_and_no_agent_is_refused_before_any_change(
    site: Site, locked_key: Path
) -> None:
    site.exported["SSH_AUTH_SOCK"] = ""
    site.write(ssh_key=str(locked_key))
    before = [prints(host) for host in site.bed.hosts]
    for done in (site.up(), site.run("make", "restart")):
        assert done.returncode != 0
        assert "refused by SSH" in said(done)
        assert "must be in an agent (ssh-add)" in said(done)
        assert "Traceback" not in said(done)
    status = said(site.run("make", "status"))
    assert "REFUSED BY SSH" in status
    assert "make recover" not in status
    assert [prints(host) for host in site.bed.hosts] == before


def test_without_sftp_files_are_sent_and_brought_all_the_same(site: Site, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for host in site.bed.hosts:
            host.read(
                f"cp {_SSHD} {_SSHD}.kept; sed -i '/^Subsystem/d' {_SSHD}; systemctl restart ssh"
            )
            stack.callback(host.read, f"mv {_SSHD}.kept {_SSHD}; systemctl restart ssh")
        assert_all_works(site)
        site.write(node_exporter=False, data_dir="/var/lib/tigerbeetle")
        done = site.run("make", "backup", f"BACKUP_DIR={tmp_path}")
    assert done.returncode == 0, said(done)[-4000:]
    (taken,) = (tmp_path / site.name).glob("*Z")
    assert len([p for p in taken.iterdir() if p.name.startswith("replica-")]) == 3


def test_what_a_login_prints_disturbs_nothing(site: Site) -> None:
    for host in site.bed.hosts:
        rc = f"/home/{ADMIN}/.bashrc"
        host.read(f"cp {rc} {rc}.kept; sed -i '1i echo Welcome; printf \"kernel 1.0\"' {rc}")
    try:
        assert_all_works(site)
    finally:
        for host in site.bed.hosts:
            host.read(f"mv {rc}.kept {rc}")


def test_one_session_at_a_time_only_costs_logins(site: Site) -> None:
    with ExitStack() as stack:
        for host in site.bed.hosts:
            stack.enter_context(sshd(host, "MaxSessions 1"))
        with counted(site) as found:
            assert_all_works(site)
    assert min(found) > 0
