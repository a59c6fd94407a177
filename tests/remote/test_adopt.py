"""Replicas that somebody has started are adopted as docs/servers.md has a person type it.

With the genuine server. The tests run in the order in which they are written: a foreign cluster of
a unit and of two servers started by hand, all that is refused, a replica whose adoption fails and
is taken back, and the rest of it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.runtimes import layout
from cluster.tigerbeetle.waiting import wait_until
from tests.remote.bed import Bed
from tests.remote.foreign import (
    OF_UNIT,
    PLACE,
    PROGRAM,
    STARTS_WITHIN_S,
    WRITTEN,
    await_listening,
    file_of,
    format_all,
    ledger_of,
    pids,
    start,
    start_all,
    stop,
    writing,
)
from tests.remote.machine import Machine
from tests.remote.site import PORT, Site, changes, prints, said

pytestmark = [
    pytest.mark.remote,
    pytest.mark.genuine,
    pytest.mark.long,
    pytest.mark.random_order(disabled=True),
]

OTHER_UNIT = f"""\
[Service]
ExecStart={PROGRAM} start --addresses=${{ADDRESSES}} ${{FILE}}
[Install]
WantedBy=multi-user.target
"""


def typed() -> list[list[str]]:
    """The make lines of the page's section, without the inventory, which is the test's own."""
    page = (REPOSITORY / "docs" / "servers.md").read_text()
    section = page.partition("\n## A cluster that somebody has started already\n")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
    makes = [line for line in lines if line[0] == "make" and "init-env" not in line]
    assert all("INVENTORY=inventories/production.py" in line for line in makes)
    return [[word for word in line if not word.startswith("INVENTORY=")] for line in makes]


def traces(host: Machine) -> set[str]:
    """All that a refusal must leave as it was, the foreign replica's file and process too.

    It runs, and so writes into its own files.
    """
    files = host.read(f"find /srv -printf '%p %i %U %m\\n' | grep -v {PLACE}$").splitlines()
    others = {line for line in prints(host) if not line.startswith(f"{PLACE}/")}
    return others | {*files, *pids(host)}


@pytest.fixture(scope="module")
def described(bed: Bed) -> Site:
    """Data files that a person has formatted, and the cluster's description; nothing runs."""
    format_all(bed)
    return Site(bed, name="production").write()


@pytest.fixture(scope="module")
def site(described: Site) -> Site:
    """The cluster, which nobody of ours has started, with some transfers in it."""
    start_all(described.bed)
    ledger_of(described.bed).write(1, WRITTEN)
    return described


@contextmanager
def having(site: Site, **changed: object) -> Iterator[None]:
    """The description says something else for a while: variables in capitals, or settings."""
    settings, variables = dict(site.settings), dict(site.variables)
    site.variables |= {key: str(value) for key, value in changed.items() if key.isupper()}
    site.write(**{key: value for key, value in changed.items() if not key.isupper()})
    try:
        yield
    finally:
        site.settings, site.variables = settings, variables
        site.write()


def adopt(site: Site) -> subprocess.CompletedProcess[str]:
    """What `make adopt CONFIRM=yes` types: make has one exit code for all that fails."""
    site.exported["CONFIRM"] = "yes"
    try:
        return site.run("python", "-m", "cluster", "adopt")
    finally:
        del site.exported["CONFIRM"]


def assert_refused(site: Site, *words: str) -> None:
    """In one line, with nothing changed: files, units, users, and who serves."""
    before = [traces(host) for host in site.bed.hosts]
    done = adopt(site)
    after = [traces(host) for host in site.bed.hosts]
    assert done.returncode == 2, said(done)[-3000:]
    (line,) = [line for line in said(done).splitlines() if line.startswith("error: ")]
    for word in (*words, ". Fix: "):
        assert word in line
    assert "Traceback" not in said(done)
    assert [now ^ then for now, then in zip(after, before, strict=True)] == [set()] * 3


def test_a_cluster_for_development_is_refused(described: Site) -> None:
    bed = described.bed
    for index in range(3):  # all of them: beside others, one of these ends by a panic
        start(bed, index, "--development")
    await_listening(bed)
    try:
        assert_refused(described, "replica 0's server: expected", "with --development", "start all")
    finally:
        for host in bed.hosts:
            stop(host)


def test_a_look_says_what_is_there_and_changes_nothing(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    done = site.run(*typed()[0])
    assert [traces(host) for host in site.bed.hosts] == before
    assert done.returncode == 2
    for index, host in enumerate(site.bed.hosts):
        (pid,) = pids(host)
        by = "started by ledger.service" if index == OF_UNIT else "started by hand, as root"
        assert f"replica {index} on {host.ip}: pid {pid}, {by}" in said(done)
        assert f"rename the file to {layout.data_path(site.deployment, index)}" in said(done)
    assert "CONFIRM: expected yes" in said(done)


def test_a_deploy_in_its_place_is_refused_and_points_here(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    for bootstrap in (False, True):
        done = site.up(bootstrap=bootstrap)
        assert done.returncode != 0
        assert "make adopt INVENTORY=" in said(done)
    assert [traces(host) for host in site.bed.hosts] == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"CLUSTER_ID": 77}, ("the data file of cluster 77", "CLUSTER_ID=")),
        ({"data_dir": "/run/tigerbeetle"}, ("on the file system of /run/tigerbeetle", "data_dir")),
        ({"RELEASE": "0.17.8"}, ("0.17.8", "0.17.9")),
        ({"engine": "emulator"}, ("found the EMULATOR",)),
        ({"clients": ["0.0.0.0/0"]}, ("clients: expected", "everybody")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_description_of_another_cluster_is_refused(
    site: Site, changed: dict[str, object], words: tuple[str, ...]
) -> None:
    with having(site, **changed):
        assert_refused(site, *words)


def test_replicas_in_another_order_are_refused(site: Site) -> None:
    first, second, third = (host.ip for host in site.bed.hosts)
    swapped = {"0_IP": second, "1_IP": first}
    addresses = ",".join(f"{ip}:{PORT}" for ip in (second, first, third))
    with having(site, **swapped, ADDRESSES=addresses, ssh_hosts=(second, first, third)):
        assert_refused(site, "expected --addresses=", "the order counts")


def test_a_unit_that_would_start_another_one_is_named(site: Site) -> None:
    host = site.bed.hosts[0]
    host.read(f"cat >/etc/systemd/system/old-tb.service <<'END'\n{OTHER_UNIT}\nEND")
    host.read("systemctl enable --quiet old-tb.service")
    try:
        assert_refused(
            site, "found old-tb.service, which would", "systemctl disable old-tb.service"
        )
    finally:
        host.read("systemctl disable --quiet old-tb.service; rm /etc/systemd/system/old-tb.service")


def test_a_cluster_that_is_not_well_is_refused(site: Site) -> None:
    host = site.bed.hosts[2]
    host.read("pkill -STOP -x tigerbeetle")
    try:
        assert_refused(site, "expected every replica that runs to be normal", "replica 2 wedged")
    finally:
        host.read("pkill -CONT -x tigerbeetle")


def test_a_server_that_does_not_run_is_refused(site: Site) -> None:
    stop(site.bed.hosts[2])
    try:
        assert_refused(site, "replica 2's server: expected one TigerBeetle server", "found none")
    finally:
        start(site.bed, 2)
        await_listening(site.bed)


def is_ours(host: Machine, index: int) -> bool:
    return host.inside(f"systemctl is-active tigerbeetle-{index}").stdout == "active\n"


def test_an_interruption_ends_with_who_runs_what(site: Site) -> None:
    """Ctrl-C while the first one is taken over: that one is finished, the others are left alone."""
    adopting = subprocess.Popen(
        [sys.executable, "-m", "cluster", "adopt"],
        cwd=REPOSITORY,
        env=site.environ | {"CONFIRM": "yes"},
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert adopting.stdout
    lines = []
    for line in adopting.stdout:
        lines.append(line)
        if "adopt: replica" in line and "(1 of 3)" in line:
            os.killpg(adopting.pid, signal.SIGINT)
    assert adopting.wait(timeout=600) == 130, "".join(lines)[-3000:]
    last = lines[-1]
    ours = [index for index, host in enumerate(site.bed.hosts) if is_ours(host, index)]
    assert len(ours) == 1
    for index, host in enumerate(site.bed.hosts):
        (pid,) = pids(host)
        said_of_it = "is adopted" if index in ours else f"pid {pid}, started by"
        assert f"replica {index} {said_of_it}" in last
    assert "Fix: make adopt INVENTORY=" in last
    await_listening(site.bed)


def test_a_replica_that_does_not_come_back_is_served_as_before(site: Site) -> None:
    """The others that were adopted stay so, and the cluster goes on."""
    bed = site.bed
    index = next(i for i in (0, 2) if not is_ours(bed.hosts[i], i))
    host, unit = bed.hosts[index], f"tigerbeetle-{index}"
    inode = host.read(f"stat --format=%i {file_of(index)}").strip()
    (pid,) = pids(host)
    drop_in = f"/etc/systemd/system/{unit}.service.d"
    host.read(f"mkdir {drop_in}; printf '[Service]\\nExecStartPre=false\\n' >{drop_in}/x.conf")
    try:
        done = adopt(site)
    finally:
        host.read(f"rm -r {drop_in}")
    assert done.returncode == 1, said(done)[-4000:]
    *_, last = [line for line in said(done).splitlines() if line.startswith("error: ")]
    (again,) = pids(host)
    assert again != pid
    assert f"replica {index} pid {again}, started by hand, as root" in last
    assert "Fix: make adopt INVENTORY=" in last
    assert host.read(f"stat --format='%i %U %a' {file_of(index)}") == f"{inode} root 600\n"
    assert not is_ours(host, index)
    assert host.inside(f"systemctl is-enabled {unit}").stdout != "enabled\n"
    await_listening(bed)
    assert len(ledger_of(site.bed).read(WRITTEN)["transfers"]) == WRITTEN


def test_a_cluster_is_adopted_with_all_that_it_holds_while_it_goes_on(site: Site) -> None:
    bed, ledger = site.bed, ledger_of(site.bed)
    before = ledger.read(WRITTEN)
    inodes = [
        host.read("find /srv /var/lib/tigerbeetle -name '*.tigerbeetle' -printf '%i\n'")
        for host in bed.hosts
    ]
    _, adopts, *others = typed()
    with writing(ledger) as acknowledged:
        done = site.run(*adopts)
        assert done.returncode == 0, said(done)[-4000:]
        assert "adopted: every replica" in said(done)
        seen = len(acknowledged)
    assert seen > 0
    after = ledger.read(WRITTEN + len(acknowledged))["transfers"]
    assert after[:WRITTEN] == before["transfers"]
    assert [transfer[0] for transfer in after[WRITTEN:]] == acknowledged
    for line in others:
        done = site.run(*line)
        assert done.returncode == 0, f"{line}: {said(done)[-4000:]}"
    for index, host in enumerate(bed.hosts):
        path = layout.data_path(site.deployment, index)
        files = "find / -xdev -type f -name '*.tigerbeetle' -printf '%i %p %U %m\n'"
        assert host.read(files) == f"{inodes[index].strip()} {path} {layout.UID} 600\n"
        assert len(pids(host)) == 1
        assert host.read(f"ls {layout.directory(site.deployment, index)}").split() == [
            Path(path).name
        ]
    assert bed.hosts[OF_UNIT].inside("systemctl is-enabled ledger").stdout == "disabled\n"
    assert changes(site.up()) == []


def test_what_is_adopted_needs_no_adoption(site: Site) -> None:
    before = [traces(host) for host in site.bed.hosts]
    done = site.run("make", "adopt")
    assert done.returncode == 0, said(done)
    assert "nothing to adopt" in said(done)
    assert [traces(host) for host in site.bed.hosts] == before


def test_they_start_with_their_servers(site: Site) -> None:
    host = site.bed.hosts[0]
    host.switch_off()
    host.switch_on()
    wait_until(
        lambda: ((done := site.run("make", "status")).returncode == 0, said(done)[-300:]),
        what="a healthy cluster",
        timeout_s=STARTS_WITHIN_S,
    )
    assert re.search(r"cluster: healthy", said(site.run("make", "status")))
