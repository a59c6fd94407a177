"""Servers that store their data files in a repository by themselves, and are made again from it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.docker.sandbox import docker
from tests.operate import repositories
from tests.operate.ledger import Ledger
from tests.operate.repositories import PASSWORD, needs_restic
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, PORT, Site, said

pytestmark = [pytest.mark.remote, pytest.mark.long, needs_restic]


def let_in(host: Machine, control: str, place: Path) -> None:
    """What an operator does on each server for SFTP: root's key, and the host's."""
    assert docker("cp", str(place / "user"), f"{host.container}:/root/.ssh/backup").returncode == 0
    key = " ".join((place / "host.pub").read_text().split()[:2])
    host.read(
        "chown root:root /root/.ssh/backup && chmod 600 /root/.ssh/backup\n"
        f"printf 'Host {control}\\n  IdentityFile /root/.ssh/backup\\n"
        "  HostKeyAlias backups\\n' >/root/.ssh/config\n"
        f"echo 'backups {key}' >/root/.ssh/known_hosts"
    )
    if host.inside("timeout 120 apt-get update -qq").returncode != 0:
        docker("cp", "--follow-link", "/usr/bin/restic", f"{host.container}:/usr/bin/restic")


def test_bare_servers_are_restored_from_what_each_has_stored_itself(
    bed: Bed, tmp_path: Path
) -> None:
    with repositories.sftp(tmp_path, bed.control) as variables:
        password = str(repositories.password_file(tmp_path))
        kept = {"BACKUP_DIR": str(tmp_path / "kept"), "BACKUP_PASSWORD_FILE": password}
        site = Site(bed, exported={**variables, **kept}).with_emulator()
        for host in bed.hosts:
            let_in(host, bed.control, tmp_path)
        done = site.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        for host in bed.hosts:
            host.read("command -v restic")
        ledger = Ledger(",".join(f"{host.ip}:{PORT}" for host in bed.hosts), CLUSTER_ID)
        ledger.write(1, 500)
        before = ledger.read(700)

        assert site.run("make", "backup-init").returncode == 0
        done = site.run("make", "backup")
        assert done.returncode == 0, said(done)[-4000:]
        assert PASSWORD not in said(done)
        (taken,) = (tmp_path / "kept" / site.name).glob("*Z")
        assert [path.name for path in taken.iterdir()] == ["manifest.json"]
        stored = json.loads(restic(site, "snapshots", "--json"))
        by = {each["paths"][0]: each["hostname"] for each in stored}
        assert [by[f"/replica-{index}.tigerbeetle"] for index in range(3)] == [
            host.name for host in bed.hosts
        ]
        for host in bed.hosts:
            assert host.inside("test ! -e /var/lib/tigerbeetle/backup").returncode == 0
            assert host.inside(f"grep -rqs '{PASSWORD}' /etc /root /var /tmp").returncode == 1
        ledger.write(501, 100)

        bed.renew()
        refused = site.run("make", "restore", f"FROM={taken.name}", "CONFIRM=yes")
        assert refused.returncode == 2  # make's own code; nobody has let root in yet
        assert "expected to reach the repository" in said(refused)
        for host in bed.hosts:
            let_in(host, bed.control, tmp_path)
        (taken / "manifest.json").unlink()  # nor is this machine the one that took it
        taken.rmdir()
        restored = site.run("make", "restore", f"FROM={taken.name}", "CONFIRM=yes")
        assert restored.returncode == 0, said(restored)[-4000:]
        assert ledger.read(700) == before


def restic(site: Site, *arguments: str) -> str:
    """Ask the repository behind the project's back, on this machine."""
    place = "/" + site.exported["BACKUP_TO"].rpartition("//")[2]
    environ = os.environ | {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": place}
    return subprocess.check_output(["restic", *arguments], env=environ, text=True, timeout=300)
