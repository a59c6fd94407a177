"""The disaster drill: three servers and all that was kept here are lost; the far repository is not.

Bare servers at the same addresses, a restore, and an audit of every transfer that was acknowledged
before the backup. The time from the command to the first commit is printed.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.operate import repositories
from tests.operate.ledger import Ledger
from tests.operate.repositories import needs_restic
from tests.remote.bed import make_bed
from tests.remote.site import CLUSTER_ID, PORT, Site, said
from tests.remote.test_repository import let_in

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long, needs_restic]

#: Servers' clocks may be apart by five seconds, for all that a proof of a backup knows.
CLOCKS_S = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three servers with a ledger, each of which stores its own backups elsewhere, by SFTP."""
    place = tmp_path_factory.mktemp("drill")
    with make_bed("bare") as bed, repositories.sftp(place, bed.control) as variables:
        own = {
            "BACKUP_PASSWORD_FILE": str(repositories.password_file(place)),
            "BACKUP_DIR": str(place / "backups"),
            "LOADTESTS_RUNS": str(place / "runs"),
        }
        made = Site(bed, exported=variables | own).write()
        for host in bed.hosts:
            let_in(host, bed.control, place)
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        typed(made, "make", "backup-init")
        yield made


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
    """A run of load and its audit, a backup, some more; then all servers, and all that is here."""
    typed(site, "make", "load", "USERS=20", "DURATION=10s")
    ledger_of(site).write(1, 500)
    held = ledger_of(site).read(600)
    time.sleep(CLOCKS_S)
    print(typed(site, "make", "backup"))
    ledger_of(site).write(501, 100)  # what the disaster takes
    site.bed.renew()
    shutil.rmtree(site.exported["BACKUP_DIR"])
    shutil.rmtree(site.environ["RECORDS_DIR"])
    return held


def test_the_far_copy_is_proven_while_there_is_no_server(site: Site, lost: Any) -> None:
    told = typed(site, "make", "backup-verify", f"RUN={run_of(site)}")
    assert re.search(r"passed +acknowledged: [\d,]+ acknowledged transfers are in", told)
    assert re.search(r"^backup: passed: ", told, re.MULTILINE)
    figures = re.findall(r".*\((?:RTO|RPO)\).*", told)
    assert len(figures) == 2
    print(*figures, sep="\n")


def test_bare_servers_have_the_ledger_back_and_every_transfer_of_before(
    site: Site, lost: Any
) -> None:
    for host in site.bed.hosts:
        let_in(host, site.bed.control, Path(site.exported["BACKUP_PASSWORD_FILE"]).parent)
    (name,) = re.findall(r"\b\d{8}T\d{6}Z\b", typed(site, "make", "backups"))
    began = time.monotonic()
    told = typed(site, "make", "restore", f"FROM={name}", "CONFIRM=yes")
    print(f"RTO: {time.monotonic() - began:.1f} s from the command on, with bare servers")
    print(*re.findall(r"restored: .*", told))
    assert ledger_of(site).read(600) == lost
    audited = typed(site, "make", "audit", f"RUN={run_of(site)}")
    assert f"audit passed: cluster {CLUSTER_ID}" in audited
    typed(site, "make", "status")
    ledger_of(site).write(501, 10)  # it goes on from there
