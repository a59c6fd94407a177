"""The disaster drill: three servers and all that was kept here are lost; the far repository is not.

Bare servers at the same addresses, a restore, and an audit of every transfer that was acknowledged
before the backup. The time from the first command to the first commit is printed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.operate.ledger import Ledger
from tests.remote.bed import Bed, make_bed
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, PORT, Site, said

pytestmark = [
    pytest.mark.remote,
    pytest.mark.genuine,
    pytest.mark.long,
    pytest.mark.skipif(not shutil.which("restic"), reason="needs restic: apt-get install restic"),
]

FAR, PLACE = "far", "/srv/ledger-backups"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three servers with a ledger, whose backups are on a fourth machine, reached by SFTP."""
    directory = tmp_path_factory.mktemp("drill")
    password = directory / "password"
    password.write_text("of the drill alone\n")
    password.chmod(0o600)
    with make_bed("bare") as bed:
        exported = {
            "BACKUP_TO": f"sftp:root@{FAR}:{PLACE}",
            "BACKUP_PASSWORD_FILE": str(password),
            "BACKUP_DIR": str(directory / "backups"),
            "LOADTESTS_RUNS": str(directory / "runs"),
            "PATH": f"{with_alias(directory / 'bin', bed)}:{os.environ['PATH']}",
        }
        made = Site(bed, exported=exported).write()
        give_way(bed)
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        done = made.run("make", "backup-init")
        assert done.returncode == 0, said(done)[-4000:]
        yield made


def with_alias(directory: Path, bed: Bed) -> Path:
    """This machine's ssh, with the far machine in its configuration."""
    config = directory / "config"
    directory.mkdir()
    alias = f"Host {FAR}\n  HostName {bed.outsider.ip}\n  HostKeyAlias {bed.outsider.ip}\n"
    config.write_text(alias + bed.ssh_config.read_text())
    program = directory / "ssh"
    real = shutil.which("ssh")
    program.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(config))} "$@"\n')
    program.chmod(0o755)
    return directory


def give_way(bed: Bed) -> None:
    """What an operator does: the servers' root may log in to the far machine, and knows it."""
    for host in bed.hosts:
        put(host, "/root/.ssh/drill", bed.key.read_text())
        put(host, "/root/.ssh/known_hosts", bed.known_hosts.read_text())
        put(
            host,
            "/root/.ssh/config",
            f"Host {FAR}\n  HostName {bed.outsider.ip}\n  IdentityFile /root/.ssh/drill\n",
        )


def put(host: Machine, path: str, text: str) -> None:
    host.read(f"umask 077; printf %s {shlex.quote(text)} >{path}")


def typed(site: Site, *words: str) -> str:
    """What a command says; it must have done what it is for."""
    done = site.run(*words)
    assert done.returncode == 0, f"{words}: {said(done)[-4000:]}"
    return said(done)


def run_of(site: Site) -> str:
    """The only run's name."""
    (found,) = Path(site.exported["LOADTESTS_RUNS"]).glob("*/run.json")
    return found.parent.name


def ledger_of(site: Site) -> Ledger:
    return Ledger(",".join(f"{host.ip}:{PORT}" for host in site.bed.hosts), CLUSTER_ID)


@pytest.fixture(scope="module")
def lost(site: Site) -> Any:
    """All transfers of a run, and some more; a backup; then all servers, and what is kept here."""
    typed(site, "make", "load", "USERS=20", "DURATION=10s")
    ledger_of(site).write(1, 500)
    held = ledger_of(site).read(600)
    time.sleep(6)  # servers' clocks may be apart by five seconds, for all that a backup knows
    ledger_of(site).write(501, 1)
    took = typed(site, "make", "backup")
    ledger_of(site).write(502, 98)  # what the disaster takes
    site.bed.renew()
    shutil.rmtree(site.exported["BACKUP_DIR"])
    shutil.rmtree(Path(site.environ["RECORDS_DIR"]))
    print(took)
    return held


def test_the_far_copy_is_proven_while_there_is_no_server(site: Site, lost: Any) -> None:
    told = typed(site, "make", "backup-verify", f"RUN={run_of(site)}")
    assert f"run {run_of(site)}: " in told
    assert "passed" in told.splitlines()[-1]
    assert re.search(r"acknowledged: [\d,]+ acknowledged transfers are in the ledger", told)
    for line in re.findall(r".*\((?:RTO|RPO)\).*", told):
        print(line)


def test_bare_servers_have_the_ledger_back_and_every_transfer_of_before(
    site: Site, lost: Any
) -> None:
    assert not Path(site.exported["BACKUP_DIR"], site.name, "manifest.json").exists()
    give_way(site.bed)
    (name,) = re.findall(r"\b\d{8}T\d{6}Z\b", typed(site, "make", "backups"))
    began = time.monotonic()
    told = typed(site, "make", "restore", f"FROM={name}", "CONFIRM=yes")
    print(f"RTO: {time.monotonic() - began:.1f} s from the command on, on bare servers")
    print(*re.findall(r"restored: .*", told))
    audited = typed(site, "make", "audit", f"RUN={run_of(site)}")
    assert f"audit passed: cluster {CLUSTER_ID}" in audited
    found = ledger_of(site).read(600)
    assert found["transfers"][:500] == lost["transfers"]
    assert len(found["transfers"]) == 501  # and nothing of after the backup
    typed(site, "make", "status")
    ledger_of(site).write(502, 10)  # it goes on from there
