"""Backups without a stop of replicas on servers, whose data are on a file system that can clone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_systems import xfs
from tests.operate import rounds
from tests.remote.bed import Bed, make_bed
from tests.remote.site import Site, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]


@pytest.fixture(scope="module")
def cloning() -> Iterator[Bed]:
    with xfs() as place, make_bed("bare", data=place) as made:
        yield made


def test_backups_in_a_row_under_load_have_every_transfer_acknowledged_before(
    cloning: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(cloning, exported={"BACKUP_DIR": str(tmp_path / "to")}).write()
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    assert "backups freeze all replicas for a moment" in said(done)

    def take(*words: str) -> Path:
        done = site.run("make", "backup", f"KEEP={rounds.ROUNDS + 1}", *words)
        assert done.returncode == 0, said(done)[-4000:]
        return sorted((tmp_path / "to" / site.name).glob("*Z"))[-1]

    taken, operations = rounds.take(site.environ, tmp_path / "runs", take)
    for host in cloning.hosts:
        assert "clone" not in host.read("ls /var/lib/tigerbeetle/replica-*")
    assert site.run("make", "down").returncode == 0
    for key, value in site.environ.items():
        monkeypatch.setenv(key, value)
    rounds.prove(site.deployment, taken, operations, monkeypatch)
