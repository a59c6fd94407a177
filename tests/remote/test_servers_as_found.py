"""Servers that somebody has used before: whatever a deploy cannot live with is refused before any
change, the rest is lived with; and a backup that cannot succeed stops no replica.

The emulator stands in for TigerBeetle: no replication is in question.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.runtimes import layout
from tests.docker.sandbox import has_base
from tests.operate.ledger import Ledger
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import CLUSTER_ID, PORT, Site, changes, prints, said
from tests.remote.test_refusals import assert_refused, having, shadow, unshadow

pytestmark = [
    pytest.mark.remote,
    pytest.mark.slow,
    pytest.mark.random_order(disabled=True),  # bare hosts first, then deployed ones
]

DATA = "/var/lib/tigerbeetle"
#: How somebody has left a server: what made it so, what takes it back, and what a deploy says.
LEFT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a user of another uid": (
        "useradd --uid 5000 --user-group --no-create-home tigerbeetle",
        "userdel tigerbeetle",
        ("the user tigerbeetle to have uid 10001", "found uid 5000", "usermod --uid 10001"),
    ),
    "another user of that uid": (
        "useradd --uid 10001 --no-user-group --no-create-home postgres",
        "userdel postgres",
        ("uid 10001 to be free, or tigerbeetle's, found postgres's",),
    ),
    "another group of that gid": (
        "groupadd --gid 10001 postgres",
        "groupdel postgres",
        ("gid 10001 to be free, or tigerbeetle's, found postgres's",),
    ),
    "a group of another gid": (
        "groupadd --gid 997 tigerbeetle",
        "groupdel tigerbeetle",
        ("the group tigerbeetle to have gid 10001", "found gid 997", "groupmod --gid 10001"),
    ),
    "a data file of root's": (
        f"mkdir -p {DATA}/replica-1 && truncate -s 1M {DATA}/replica-1/7_1.tigerbeetle",
        f"rm -r {DATA}",
        (f"{DATA}/replica-1/7_1.tigerbeetle to belong to 10001:10001", "found it with 0:0"),
    ),
    "a link in the place of the data directory": (
        f"mkdir /srv/ledger && ln -s /srv/ledger {DATA}",
        f"rm {DATA} && rmdir /srv/ledger",
        ("found a link to /srv/ledger", 'set data_dir="/srv/ledger"'),
    ),
    "a file in the place of the data directory": (
        f"touch {DATA}",
        f"rm {DATA}",
        (f"expected a directory {DATA}, or nothing there, found something else",),
    ),
}


@pytest.fixture(scope="module")
def site(bed: Bed) -> Site:
    """Three bare hosts and an inventory for them; nothing is deployed."""
    return Site(bed).with_emulator()


@pytest.mark.long
@pytest.mark.parametrize("how", LEFT)
def test_a_server_that_cannot_serve_as_it_was_left_is_refused(site: Site, how: str) -> None:
    make, take_back, words = LEFT[how]
    site.bed.hosts[1].read(make)
    try:
        assert_refused(site, "replica 1's server: expected ", *words)
    finally:
        site.bed.hosts[1].read(take_back)


@pytest.mark.long
@pytest.mark.parametrize("place", ["/home/ledger", "/root/ledger", "/var/tmp/ledger"])
def test_a_data_directory_that_the_unit_would_not_see_is_refused(site: Site, place: str) -> None:
    with having(site, data_dir=place):
        assert_refused(site, f"expected {place} where its unit sees it", "which units do not see")


@pytest.mark.long
def test_a_data_directory_behind_a_closed_one_is_refused(site: Site) -> None:
    host = site.bed.hosts[1]
    host.read("mkdir -m 700 /srv/closed")
    try:
        with having(site, data_dir="/srv/closed/ledger"):
            assert_refused(site, "replica 1's server: ", "found /srv/closed closed to it")
    finally:
        host.read("rmdir /srv/closed")


# --- Lived with ---------------------------------------------------------------------------------


def have_login_output(bed: Bed) -> None:
    """What a login prints comes before whatever is asked for, for programs, too."""
    for host in bed.hosts:
        for home in ("/root", "/home/admin"):
            host.read(f"touch {home}/.bashrc && sed -i '1i echo Welcome; echo' {home}/.bashrc")
        for user in ("root", "admin"):
            assert host.ssh("echo asked", user).stdout == "Welcome\n\nasked\n"


def have_no_sftp(bed: Bed) -> None:
    for host in bed.hosts:
        host.read("sed -i '/^Subsystem/d' /etc/ssh/sshd_config && systemctl reload ssh")


@pytest.fixture(scope="module")
def deployed(site: Site) -> Site:
    """Deployed below a link, on servers whose logins print, and which have no SFTP."""
    have_login_output(site.bed)
    have_no_sftp(site.bed)
    for host in site.bed.hosts:
        host.read("mkdir /mnt/disk && ln -s /mnt/disk /mnt/here")
    site.write(data_dir="/mnt/here/ledger")
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    return site


@pytest.mark.long
def test_a_deploy_works_where_logins_print_without_sftp_and_below_a_link(deployed: Site) -> None:
    done = deployed.up()
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    status = deployed.run("make", "status")
    assert status.returncode == 0, said(status)
    for index, host in enumerate(deployed.bed.hosts):
        (file,) = host.read("ls /mnt/disk/ledger/*/*.tigerbeetle").split()
        assert file.startswith(f"/mnt/disk/ledger/replica-{index}/")


@pytest.mark.long
def test_what_is_deployed_is_verified_where_logins_print(deployed: Site) -> None:
    done = deployed.run("make", "verify")
    assert done.returncode == 0, said(done)[-4000:]


@pytest.mark.long
def test_a_backup_is_taken_and_restored_where_logins_print_and_without_sftp(
    deployed: Site, tmp_path: Path
) -> None:
    assert_backed_up_and_restored(deployed, tmp_path)


def assert_backed_up_and_restored(site: Site, directory: Path) -> None:
    ledger = Ledger(",".join(f"{host.ip}:{PORT}" for host in site.bed.hosts), CLUSTER_ID)
    ledger.write(1, 100)
    before = ledger.read(200)
    done = site.run("make", "backup", f"BACKUP_DIR={directory}")
    assert done.returncode == 0, said(done)[-4000:]
    (taken,) = (directory / site.name).glob("*Z")
    ledger.write(101, 50)
    assert site.run("make", "down").returncode == 0
    done = site.run("make", "restore", f"FROM={taken}", "CONFIRM=yes")
    assert done.returncode == 0, said(done)[-4000:]
    assert ledger.read(200) == before


# --- A backup that cannot succeed ---------------------------------------------------------------


@contextmanager
def broken_packers(host: Machine, data_file: str) -> Iterator[None]:
    for program in ("zstd", "gzip"):
        shadow(host, program, "echo it is broken >&2; exit 1")
    try:
        yield
    finally:
        for program in ("zstd", "gzip"):
            unshadow(host, program)


@contextmanager
def taken_directory(host: Machine, data_file: str) -> Iterator[None]:
    file = Path(data_file).parents[1] / "backup"
    host.read(f"touch {file}")
    try:
        yield
    finally:
        host.read(f"rm {file}")


@contextmanager
def lost_right(host: Machine, data_file: str) -> Iterator[None]:
    """The replica has it open, and its user may no longer read it."""
    host.read(f"chown root: {data_file}")
    try:
        yield
    finally:
        host.read(f"chown 10001:10001 {data_file}")


NEEDS = {
    "a program that packs": (broken_packers, "pack it with zstd or gzip"),
    "a directory to pack into": (taken_directory, "expected to make the directory"),
    "the right to read the file": (lost_right, "expected to read its data file"),
}


def assert_nothing_is_stopped(site: Site, directory: Path, need: str, began: str) -> None:
    """``began`` prints since when a host's replica has run, and how often it has been restarted."""
    lacking, word = NEEDS[need]
    hosts = site.bed.hosts
    with lacking(hosts[1], layout.data_path(site.deployment, 1)):
        since = [host.read(began) for host in hosts]
        before = [prints(host) for host in hosts]
        done = site.run("make", "backup", f"BACKUP_DIR={directory}")
        assert done.returncode != 0
        assert word in said(done), said(done)[-4000:]
        assert "no backup was taken; every replica runs" in said(done)
        assert [host.read(began) for host in hosts] == since
        assert [prints(host) ^ then for host, then in zip(hosts, before, strict=True)] == [
            set()
        ] * 3
        packed = f"{layout.data_dir(site.deployment)}/backup"
        assert [host.inside(f"test -d {packed}").returncode for host in hosts] == [1] * 3
    assert [*directory.rglob("*Z*")] == []


@pytest.mark.long
@pytest.mark.parametrize("need", NEEDS)
def test_a_backup_whose_need_is_not_met_stops_no_unit(
    deployed: Site, tmp_path: Path, need: str
) -> None:
    began = (
        "systemctl show 'tigerbeetle-*.service'"
        " --property=ActiveEnterTimestampMonotonic,NRestarts,MainPID"
    )
    assert_nothing_is_stopped(deployed, tmp_path, need, began)


# --- The same in containers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def contained(engine_bed: Bed) -> Site:
    """Replicas in containers, below /home, where logins print, and without SFTP."""
    if not has_base("emulator"):
        pytest.skip("no base image of the emulator: .ci/provision-docker base")
    site = Site(engine_bed, runtime="docker").with_emulator()
    site.write(data_dir="/home/ledger")
    site.build_image()
    have_login_output(engine_bed)
    have_no_sftp(engine_bed)
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    return site


@pytest.mark.long
def test_containers_are_deployed_below_home_where_logins_print(contained: Site) -> None:
    done = contained.up()
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    path = layout.data_path(contained.deployment, 1)
    assert path.startswith("/home/ledger/")
    assert contained.bed.hosts[1].read(f"stat --format=%u {path}") == "10001\n"


@pytest.mark.long
@pytest.mark.parametrize("need", NEEDS)
def test_a_backup_whose_need_is_not_met_stops_no_container(
    contained: Site, tmp_path: Path, need: str
) -> None:
    began = "docker inspect --format '{{.State.StartedAt}} {{.RestartCount}}' $(docker ps --quiet)"
    assert_nothing_is_stopped(contained, tmp_path, need, began)


@pytest.mark.long
def test_a_backup_of_containers_is_taken_and_restored_where_logins_print(
    contained: Site, tmp_path: Path
) -> None:
    assert_backed_up_and_restored(contained, tmp_path)
