"""Backup and restore of replicas on servers: packed there, brought here, sent back, all or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operate.ledger import Ledger
from tests.remote.bed import Bed
from tests.remote.site import CLUSTER_ID, PORT, Site, said

pytestmark = [pytest.mark.remote, pytest.mark.long]


def test_servers_that_lost_all_data_files_are_restored_from_here(bed: Bed, tmp_path: Path) -> None:
    site = Site(bed).with_emulator()
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    ledger = Ledger(",".join(f"{host.ip}:{PORT}" for host in bed.hosts), CLUSTER_ID)
    ledger.write(1, 500)
    before = ledger.read(600)
    done = site.run("make", "backup", f"BACKUP_DIR={tmp_path}")
    assert done.returncode == 0, said(done)[-4000:]
    (taken,) = (tmp_path / site.name).glob("*Z")
    assert len([p for p in taken.iterdir() if p.name.startswith("replica-")]) == 3
    for host in bed.hosts:
        assert host.inside("test ! -e /var/lib/tigerbeetle/backup").returncode == 0
    ledger.write(501, 100)

    assert site.run("make", "down").returncode == 0
    for host in bed.hosts:
        host.inside("rm -f /var/lib/tigerbeetle/replica-*/*.tigerbeetle")
    restored = site.run("make", "restore", f"FROM={taken}", "CONFIRM=yes")
    assert restored.returncode == 0, said(restored)[-4000:]
    assert ledger.read(600) == before
