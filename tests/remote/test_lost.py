"""All servers are lost, with their disks: docs/servers.md brings the ledger back onto bare ones.

The genuine server as a unit; the emulator in Docker, where replication is not in question. The
tests of a runtime run in the order in which they are written: each goes on where the one before
ended.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from tests.operate.interruption import INT, interrupted, python
from tests.operate.ledger import Ledger
from tests.remote.bed import make_bed
from tests.remote.image import Flavour
from tests.remote.site import CLUSTER_ID, PORT, Site, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]

FLAVOURS: dict[str, Flavour] = {"systemd": "bare", "docker": "engine"}
PAGE = (REPOSITORY / "docs" / "servers.md").read_text()
INTERRUPTED = 130


@pytest.fixture(scope="module", params=FLAVOURS)
def site(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Site]:
    """Three hosts with a ledger, whose backups are on this machine."""
    runtime, backups = request.param, tmp_path_factory.mktemp("backups")
    with make_bed(FLAVOURS[runtime]) as bed:
        made = Site(bed, runtime=runtime, exported={"BACKUP_DIR": str(backups)})
        if runtime == "docker":
            made.with_emulator().build_image()
        made.write()
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        yield made


@pytest.fixture(scope="module")
def before(site: Site) -> dict[str, Any]:
    """What the ledger held at the backup; then more was written, and then all servers were lost."""
    ledger_of(site).write(1, 500)
    held: dict[str, Any] = ledger_of(site).read(600)
    done = site.run("make", "backup")
    assert done.returncode == 0, said(done)[-4000:]
    ledger_of(site).write(501, 100)
    site.bed.renew()
    return held


def ledger_of(site: Site) -> Ledger:
    return Ledger(",".join(f"{host.ip}:{PORT}" for host in site.bed.hosts), CLUSTER_ID)


def backup_of(site: Site) -> Path:
    (taken,) = (Path(site.exported["BACKUP_DIR"]) / site.name).glob("*Z")
    return taken


def data_files(site: Site) -> list[str]:
    """All that is in the replicas' directories, by the hosts' own word."""
    look = "find /var/lib/tigerbeetle -name '*.tigerbeetle*' -printf '%f\\n' 2>/dev/null | sort"
    return [host.inside(look).stdout for host in site.bed.hosts]


def test_a_deploy_to_bare_servers_leads_to_the_backup_first_and_changes_nothing(
    site: Site, before: dict[str, Any]
) -> None:
    watched = [prints(host) for host in site.bed.hosts]
    done = site.run("make", "up")
    assert done.returncode == 2
    told = next(line for line in said(done).splitlines() if line.startswith("error: "))
    assert "though it has existed" in told
    fix = told.partition("Fix: ")[2]
    typed = f"make restore INVENTORY={site.inventory} FROM={backup_of(site)}"
    assert 0 <= fix.find(typed) < fix.find("BOOTSTRAP=yes")
    assert [prints(host) for host in site.bed.hosts] == watched


def test_a_restore_is_refused_before_any_bare_server_is_changed(
    site: Site, before: dict[str, Any]
) -> None:
    """What one server lacks is known before the first is prepared."""
    host = site.bed.hosts[1]
    shadowed = "/usr/local/bin/dd"  # what cannot be had in a container: a disk without direct I/O
    script = 'case "$*" in *oflag=direct*) exit 1;; esac; exec /usr/bin/dd "$@"'
    host.read(f"printf '%s\n' '#!/bin/sh' {shlex.quote(script)} >{shadowed}; chmod 755 {shadowed}")
    watched = [prints(each) for each in site.bed.hosts]
    try:
        done = site.run("make", "restore", f"FROM={backup_of(site)}", "CONFIRM=yes")
    finally:
        changed = [prints(each) != seen for each, seen in zip(site.bed.hosts, watched, strict=True)]
        host.read(f"rm {shadowed}")
    assert done.returncode == 2
    last = [line for line in said(done).splitlines() if line.startswith("error: ")][-1]
    assert "replica 1's server: expected direct I/O" in last
    assert changed == [False, False, False]


@pytest.mark.parametrize("step", ["Prepare the server |", "| Unpack the data files"])
def test_a_restore_that_is_interrupted_says_that_it_is_to_be_repeated(
    site: Site, before: dict[str, Any], step: str
) -> None:
    site.exported["CONFIRM"] = "yes"
    restore = python("restore", f"--from={backup_of(site)}")
    code, printed = interrupted(site, restore, step, INT, 1)
    assert code == INTERRUPTED, printed[-4000:]
    last = printed.rstrip().splitlines()[-1]
    assert last.startswith("interrupted; the data files are as they were; no replica runs. Fix: ")
    (typed,) = re.findall(r"Fix: (make restore .*)", last)
    assert shlex.split(typed)[2:] == [f"INVENTORY={site.inventory}", f"FROM={backup_of(site)}"]
    assert data_files(site) == ["", "", ""]


def test_the_page_s_commands_bring_the_ledger_back_onto_bare_servers(
    site: Site, before: dict[str, Any]
) -> None:
    section = PAGE.partition("\n## All servers are lost\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]
    assert [words[1] for words in commands] == ["up", "restore", "verify", "status"]
    by = {
        "INVENTORY=inventories/production.py": f"INVENTORY={site.inventory}",
        "FROM=backups/production/TIME": f"FROM={backup_of(site)}",
    }
    site.exported.pop("CONFIRM", None)
    site.bed.renew()
    for words in commands:
        done = site.run(*(by.get(word, word) for word in words))
        wanted = 2 if words[1] == "up" else 0
        assert done.returncode == wanted, f"{words}: {said(done)[-4000:]}"
    assert ledger_of(site).read(600) == before
    assert data_files(site) == [f"{CLUSTER_ID}_{index}.tigerbeetle\n" for index in range(3)]
    for host in site.bed.hosts:
        assert not site.bed.outsider.reaches(host.ip, PORT)  # the firewall is back, too
    ledger_of(site).write(601, 10)  # and it goes on from there
