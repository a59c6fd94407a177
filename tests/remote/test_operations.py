"""A cluster's life on servers, as docs/servers.md has a person type it. With the genuine server.

The tests run in the order in which they are written: each goes on where the one before ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.config import PREFIX
from cluster.runtimes import layout, tunnel
from cluster.tigerbeetle.waiting import wait_until
from tests.operate.ledger import Ledger
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import PORT, Site, changes, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]

EXAMPLE = REPOSITORY / "inventories" / "production.example.py"
WATCH_LINES_MAX = 2000


def edited(example: str, changed: dict[str, str]) -> str:
    """The example inventory, with each of these lines found once and replaced."""
    for line, by in changed.items():
        assert example.count(line) == 1, line
        example = example.replace(line, by)
    return example


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """Deployed by what docs/servers.md types, from the example; SSH's own names and keys apart."""
    made = Site(bed, name="production", exported={f"{PREFIX}CACHE_GRID": "64MiB"})
    hosts = " ".join(host.ip for host in bed.hosts)
    init = made.run("make", "init-env", f"HOSTS={hosts}", f"OUT={made.env_file}")
    assert init.returncode == 0, said(init)
    made.inventory.write_text(
        edited(
            EXAMPLE.read_text(),
            {
                '"env/production.env"': repr(str(made.env_file)),
                'clients=("10.0.9.0/24",)': f"clients=({bed.client.ip + '/32'!r},)",
                '# ssh_key="~/.ssh/id_ed25519"': f"ssh_key={str(bed.key)!r}",
                '# ssh_known_hosts_file="~/.ssh/known_hosts"': (
                    f"ssh_known_hosts_file={str(bed.known_hosts)!r}"
                ),
                "check_clock=True": "check_clock=False",
            },
        )
    )
    done = made.run("make", "up", "BOOTSTRAP=yes")
    assert done.returncode == 0, said(done)[-4000:]
    return made


def ledger_of(site: Site) -> Ledger:
    """The ledger as this machine, which is no client, reaches it: through SSH."""
    way = tunnel.reached(site.deployment)
    return Ledger(way.client_addresses, way.cluster.id)


def assert_healthy(site: Site) -> None:
    done = site.run("make", "status")
    assert done.returncode == 0, said(done)


def test_what_was_typed_has_made_a_private_file_and_a_healthy_cluster(site: Site) -> None:
    assert site.env_file.stat().st_mode & 0o777 == 0o600
    assert_healthy(site)
    for host in site.bed.hosts:
        assert site.bed.client.reaches(host.ip, PORT)
        # This machine is no client here: its status has come through tunnels.
        with socket.socket() as knocking:
            knocking.settimeout(1)
            assert knocking.connect_ex((host.ip, PORT)) != 0


def test_the_logs_of_all_replicas_or_of_one_are_printed(site: Site) -> None:
    done = site.run("make", "logs")
    assert done.returncode == 0, said(done)
    assert {f"replica-{i}" for i in range(3)} == {
        line.split(" | ")[0] for line in done.stdout.splitlines()
    }
    one = site.run("make", "logs", "REPLICA=1")
    assert one.returncode == 0, said(one)
    assert {line.split(" | ")[0] for line in one.stdout.splitlines()} == {"replica-1"}
    assert "listening on" in one.stdout
    none = site.run("make", "logs", "REPLICA=7")
    assert none.returncode == 2
    assert "REPLICA: expected one of 0, 1, 2, found 7" in none.stderr


def nobody_follows(host: Machine) -> tuple[bool, str]:
    found = host.inside("pgrep --full --list-full 'journalct[l].*--follow'").stdout
    return found == "", found


def test_watching_says_what_a_stopped_replica_means(site: Site) -> None:
    watch = subprocess.Popen(
        ["make", "watch"],
        cwd=REPOSITORY,
        env=site.environ,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert watch.stdout
        site.bed.hosts[1].read("systemctl restart tigerbeetle-1")
        for _, line in zip(range(WATCH_LINES_MAX), watch.stdout, strict=False):
            if line.startswith("1 ") and "<-" in line:
                break
        else:
            pytest.fail("no line of replica 1 that means something")
    finally:
        os.killpg(watch.pid, signal.SIGINT)
        watch.communicate(timeout=300)
    for host in site.bed.hosts:
        wait_until(partial(nobody_follows, host), what="the followers to end", timeout_s=100)
    assert changes(site.up()) == []


def test_a_dry_run_shows_what_would_change_and_changes_nothing(site: Site) -> None:
    before = [prints(host) for host in site.bed.hosts]
    site.exported[f"{PREFIX}CACHE_GRID"] = "128MiB"
    try:
        done = site.run("pyinfra", str(site.inventory), "deploy.py", "--dry")
    finally:
        site.exported[f"{PREFIX}CACHE_GRID"] = "64MiB"
    assert done.returncode == 0, said(done)[-3000:]
    assert "Describe the replicas | Write /etc/systemd/system/tigerbeetle-" in said(done)
    assert [prints(host) for host in site.bed.hosts] == before


def test_all_are_stopped_and_started_and_restarted_in_turn(site: Site) -> None:
    done = site.run("make", "down")
    assert done.returncode == 0, said(done)[-3000:]
    assert site.run("python", "-m", "cluster", "status").returncode == 3
    for index, host in enumerate(site.bed.hosts):
        assert host.inside(f"systemctl is-active tigerbeetle-{index}").stdout != "active\n"
    done = site.run("make", "up")
    assert done.returncode == 0, said(done)[-3000:]
    done = site.run("make", "restart")
    assert done.returncode == 0, said(done)[-3000:]
    assert_healthy(site)


def test_a_lost_data_file_is_recovered_from_the_others(site: Site) -> None:
    host, path = site.bed.hosts[1], layout.data_path(site.deployment, 1)
    host.read(f"systemctl stop tigerbeetle-1 && rm {path}")
    refused = site.run("make", "recover", "REPLICA=7")
    assert "REPLICA: expected one of 0, 1, 2" in said(refused)
    done = site.run("make", "recover", "REPLICA=1")
    assert done.returncode == 0, said(done)[-4000:]
    assert "replica 1 has caught up" in said(done)
    assert host.read(f"stat --format='%U %a' {path}") == "tigerbeetle 600\n"
    assert_healthy(site)
    assert changes(site.up()) == []


def test_a_server_that_is_gone_is_replaced_by_a_bare_one(site: Site) -> None:
    host = site.bed.hosts[2]
    site.bed.renew(host.name)
    refused = site.run("make", "up")
    assert refused.returncode != 0
    assert "replica 2: expected a data file" in said(refused)
    done = site.run("make", "recover", "REPLICA=2")
    assert done.returncode == 0, said(done)[-4000:]
    assert "replica 2 has caught up" in said(done)
    assert_healthy(site)
    assert not site.bed.outsider.reaches(host.ip, PORT)
    assert changes(site.up()) == []


def test_a_backup_is_restored_and_takes_back_what_came_after_it(site: Site, tmp_path: Path) -> None:
    ledger = ledger_of(site)
    ledger.write(1, 500)
    before = ledger.read(600)
    done = site.run("make", "backup", f"BACKUP_DIR={tmp_path}")
    assert done.returncode == 0, said(done)[-4000:]
    (taken,) = (tmp_path / site.name).glob("*Z")
    ledger.write(501, 100)
    assert ledger.read(600) != before
    assert site.run("make", "down").returncode == 0
    for host in site.bed.hosts:
        host.inside("rm -f /var/lib/tigerbeetle/replica-*/*.tigerbeetle")
    done = site.run("make", "restore", f"FROM={taken}", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    assert ledger.read(600) == before
    assert_healthy(site)
