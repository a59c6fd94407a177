"""Six servers, deployed by the same tasks as three. With the emulator: it needs little memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.bed import make_bed
from tests.remote.site import PORT, Site, changes, said

pytestmark = [pytest.mark.remote, pytest.mark.long]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_bed("bare", hosts=6) as bed:
        yield Site(bed).with_emulator()


def test_two_servers_less_than_replicas_are_refused(site: Site) -> None:
    ips = [host.ip for host in site.bed.hosts]
    try:
        site.write(ssh_hosts=ips[:4])
        done = site.up(bootstrap=True)
    finally:
        site.settings.pop("ssh_hosts")
        site.write()
    assert done.returncode != 0
    assert "ssh_hosts: expected 6 hosts, one per replica, in replica order, found 4" in said(done)


def test_six_replicas_are_deployed_once_and_reached_by_clients_alone(site: Site) -> None:
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(site.up()) == []
    status = site.run("make", "status")
    assert status.returncode == 0, said(status)
    for index, host in enumerate(site.bed.hosts):
        files = host.read("find /var/lib/tigerbeetle -name '*.tigerbeetle' -printf '%f\n'")
        assert files == f"{site.deployment.cluster.id}_{index}.tigerbeetle\n"
        assert site.bed.client.reaches(host.ip, PORT)
        assert not site.bed.outsider.reaches(host.ip, PORT)
