"""Servers that limit SSH: how often each command logs in, and what is said where nobody gets in.

With the emulator: it is the way there that is in question. `tests/remote/test_upgrade.py` counts
an upgrade's logins.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.runtimes import tunnel
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import has_base
from tests.remote.bed import make_bed
from tests.remote.image import Flavour
from tests.remote.logins import LOGINS_MAX, counted, cut, limited, sshd
from tests.remote.machine import ADMIN, Machine
from tests.remote.site import Site, changes, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.long]

FLAVOURS: dict[str, Flavour] = {"systemd": "bare", "docker": "engine"}
#: As sshd has it where nobody has raised it; the bed has.
DEFAULTS = ("MaxStartups 10:30:100", "MaxSessions 10")
#: How this machine reaches the replicas: as a listed client, or through SSH.
REACHES = ("direct", "tunnel")
#: Who logs in: one who may do everything through sudo, or root.
USERS = (ADMIN, "root")
COMMANDS = {
    "up": ["make", "up"],
    "status": ["python", "-m", "cluster", "status"],
    "verify": ["make", "verify"],
    "restart": ["make", "restart"],
    "logs": ["make", "logs"],
    "doctor": ["make", "doctor"],
    "backup": ["make", "backup"],
}


@pytest.fixture(scope="module", params=FLAVOURS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A cluster on servers with sshd's own limits, which are low."""
    runtime = request.param
    if runtime == "docker" and not has_base("emulator"):
        pytest.skip("no base image of the emulator")
    with make_bed(FLAVOURS[runtime]) as bed, ExitStack() as stack:
        made = Site(bed, runtime=runtime).with_emulator()
        made.exported["BACKUP_DIR"] = str(tmp_path_factory.mktemp("backups"))
        if runtime == "docker":
            made.build_image()
        for host in bed.hosts:
            stack.enter_context(sshd(host, *DEFAULTS))
        with counted(made) as found:
            done = made.run("make", "up", "BOOTSTRAP=yes")
        assert done.returncode == 0, said(done)[-4000:]
        told(made, "up, the first", found)
        yield made


def told(site: Site, what: str, found: list[int], seconds: float = 0) -> None:
    """One row of the table, for who runs this with ``-s``; never more than is allowed."""
    reach, user = site.settings.get("reach", "auto"), site.settings.get("ssh_user", ADMIN)
    print(f"| {site.runtime} | {user} | {reach} | {what} | {max(found)} | {seconds:.1f} s |")
    assert max(found) <= LOGINS_MAX, (what, found)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("what", COMMANDS)
def test_no_command_logs_in_more_than_three_times(
    site: Site, what: str, reach: str, user: str
) -> None:
    site.write(reach=reach, ssh_user=user)
    with counted(site) as found:
        started = time.monotonic()
        done = site.run(*COMMANDS[what])
        seconds = time.monotonic() - started
    assert done.returncode == 0, said(done)[-4000:]
    assert min(found) > 0  # the connections were cut before
    told(site, what, found, seconds)


def test_who_comes_within_a_minute_does_not_log_in_at_all(site: Site) -> None:
    site.write(reach="tunnel", ssh_user=ADMIN)
    tunnel.reached(site.deployment)  # which keeps the connections, however slow this machine is
    with counted(site, cold=False) as found:
        assert site.run(*COMMANDS["status"]).returncode == 0
        done = site.run(*COMMANDS["up"])
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    assert found == [0, 0, 0]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("reach", REACHES)
def test_a_restore_logs_in_no_more_than_any_other(site: Site, reach: str, user: str) -> None:
    site.write(reach=reach, ssh_user=user)
    assert site.run(*COMMANDS["backup"]).returncode == 0
    (*_, taken) = sorted(Path(site.exported["BACKUP_DIR"]).glob(f"{site.name}/*Z"))
    assert site.run("make", "down").returncode == 0
    with counted(site) as found:
        done = site.run("make", "restore", f"FROM={taken}", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    told(site, "restore", found)


def test_a_server_that_limits_new_connections_as_ufw_does_is_none_the_worse(site: Site) -> None:
    site.write(reach="tunnel", ssh_user=ADMIN)
    with ExitStack() as stack:
        for host in site.bed.hosts:
            stack.enter_context(limited(host, "reject with tcp reset", rate="12/minute"))
        for what in ("status", "verify", "restart", "status"):
            done = site.run(*COMMANDS[what])
            assert done.returncode == 0, said(done)[-4000:]


def test_a_command_that_is_killed_leaves_nothing_that_hinders_the_next(site: Site) -> None:
    site.write(reach="tunnel", ssh_user=ADMIN)
    before = tunnels(site)
    with subprocess.Popen(
        ["make", "status", "WATCH=yes"],
        cwd=REPOSITORY,
        env=site.environ,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as watching:
        more = [count + 1 for count in before]
        wait_until(lambda: (tunnels(site) == more, "none"), what="its tunnels", timeout_s=300)
        os.killpg(watching.pid, signal.SIGKILL)
    wait_until(lambda: (tunnels(site) == before, "some"), what="none of its own", timeout_s=300)
    tunnel.reached(site.deployment)  # which keeps the connections, however slow this machine is
    with counted(site, cold=False) as found:
        done = site.run(*COMMANDS["status"])
    assert done.returncode == 0, said(done)
    assert found == [0, 0, 0]


def tunnels(site: Site) -> list[int]:
    """How many are kept to each server: by a program there that only waits."""
    found = [host.inside("pgrep --count --exact cat").stdout for host in site.bed.hosts]
    return list(map(int, found))


def banner(host: Machine) -> tuple[socket.socket, bytes]:
    """A new connection that says nothing, and what sshd says to it."""
    made = socket.create_connection((host.ip, 22), 60)
    return made, made.recv(100)


def busy(host: Machine) -> ExitStack:
    """All of sshd's places are taken by people who do not say who they are."""
    stack = ExitStack()
    stack.enter_context(sshd(host, "MaxStartups 1", "LoginGraceTime 600", name="0"))

    def is_full() -> tuple[bool, str]:
        made, said = banner(host)
        stack.enter_context(made)
        return not said.startswith(b"SSH-"), repr(said)

    wait_until(is_full, what="sshd to be full", timeout_s=300)
    return stack


def refused_by(how: str, site: Site) -> ExitStack:
    host = site.bed.hosts[1]
    cut(host)
    if how == "MaxStartups":
        return busy(host)
    stack = ExitStack()
    stack.enter_context(limited(host, how))
    return stack


@pytest.mark.parametrize("how", ["MaxStartups", "reject with tcp reset"])
def test_a_server_that_lets_nobody_in_is_said_to_and_nothing_is_repaired(
    site: Site, how: str
) -> None:
    site.write(reach="direct", ssh_user=ADMIN)
    with refused_by(how, site):
        before = [prints(host) for host in site.bed.hosts]
        status = site.run("python", "-m", "cluster", "status", "--json")
        commands = [
            site.run("python", "-m", "cluster", *what)
            for what in (["status"], ["doctor", "--inventory", str(site.inventory)])
        ]
        commands += [site.run("make", *what) for what in (["restart"], ["backup"], ["up"])]
        now = [prints(host) for host in site.bed.hosts]
    found = json.loads(status.stdout)
    assert [r["process"] for r in found["replicas"]][1] == "REFUSED BY SSH"
    assert found["verdict"] == "degraded"
    assert found["canary"]["commits"]
    for done in (status, *commands):
        assert done.returncode != 0
        assert "refused by SSH" in said(done), said(done)
        assert "wait a minute" in said(done)
        for repair in ("make recover", "make restore", "BOOTSTRAP"):
            assert repair not in said(done), said(done)
    assert now == before
    assert site.run(*COMMANDS["status"]).returncode == 0


def test_a_server_that_is_off_is_unreachable_and_not_called_refusing(site: Site) -> None:
    site.bed.hosts[2].switch_off()
    try:
        done = site.run("python", "-m", "cluster", "status", "--json")
    finally:
        site.bed.hosts[2].switch_on()
    assert [r["process"] for r in json.loads(done.stdout)["replicas"]][2] == "UNREACHABLE"
