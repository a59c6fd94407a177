"""`make upgrade` of replicas on servers, between two genuine releases, as units."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy import releases
from tests.operate.ledger import Ledger
from tests.remote.bed import Bed
from tests.remote.logins import LOGINS_MAX, counted
from tests.remote.site import CLUSTER_ID, PORT, Site, changes, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]


def running(site: Site) -> list[str]:
    """What each replica's journal last said that it runs: another way than the ping."""
    found = []
    for index, host in enumerate(site.bed.hosts):
        log = host.read(f"journalctl --namespace=tigerbeetle --unit=tigerbeetle-{index} -o cat")
        found.append(releases.last_said(log))
    return found


def test_servers_move_to_the_new_release_and_keep_their_ledger(bed: Bed, tmp_path: Path) -> None:
    old, new = releases.both_or_skip()
    client = releases.install_client_or_skip(old, tmp_path / "client")
    site = Site(bed, variables={"RELEASE": old})
    site.exported |= {"TIGERBEETLE_BIN": releases.OLD, "PYTHONPATH": str(client)}
    site.write()
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    assert running(site) == [old] * 3
    ledger = Ledger(
        ",".join(f"{host.ip}:{PORT}" for host in bed.hosts), CLUSTER_ID, pythonpath=str(client)
    )
    ledger.write(1, 500)
    before = ledger.read(600)

    site.exported["TIGERBEETLE_BIN"] = releases.NEW
    unconfirmed = site.run("make", "upgrade", f"TO={new}")
    assert unconfirmed.returncode == 2
    assert "CONFIRM: expected yes" in unconfirmed.stderr
    assert running(site) == [old] * 3

    with counted(site) as logins:
        done = site.run("make", "upgrade", f"TO={new}", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    print(f"| systemd | auto | upgrade | {max(logins)} |")
    assert max(logins) <= LOGINS_MAX
    assert f"every replica runs {new}" in done.stdout
    assert running(site) == [new] * 3
    assert f"RELEASE={new}\n" in site.env_file.read_text()
    assert ledger.read(600) == before
    assert changes(site.up()) == []
