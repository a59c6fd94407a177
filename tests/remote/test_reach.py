"""Loads, audits and the like in both reaches: from no client, through SSH; and from a client.

With the emulator: it is the way there that is in question. The tests run in their order.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from loadtests.run import runs
from loadtests.run.result import read_audit, read_manifest
from tests.remote.bed import Bed
from tests.remote.site import CLUSTER_ID, PORT, Site, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.long]

WHOSE = f"cluster {CLUSTER_ID} (remote, emulator)"
SHORT = ["DURATION=3s", "USERS=5", "LOAD=--warmup-s 1 --wallets 50"]


@pytest.fixture(scope="module", params=["tunnel", "direct"])
def site(
    request: pytest.FixtureRequest, bed: Bed, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Three servers that let in nobody but one another and a client: another machine, or this."""
    is_client = request.param == "direct"
    client = bed.control if is_client else bed.client.ip
    made = Site(bed, settings={"clients": [f"{client}/32"]}).with_emulator()
    for variable in ("LOADTESTS_RUNS", "BACKUP_DIR"):
        made.exported[variable] = str(tmp_path_factory.mktemp(variable.lower()))
    done = made.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    for host in bed.hosts:
        with socket.socket() as knocking:
            knocking.settimeout(1)
            assert (knocking.connect_ex((host.ip, PORT)) == 0) == is_client
    return made


@pytest.fixture
def kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs are."""
    monkeypatch.setenv("LOADTESTS_RUNS", site.exported["LOADTESTS_RUNS"])
    return runs.directory()


def make(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return site.run("make", *arguments)


def test_the_status_is_read_and_the_cluster_is_verified(site: Site) -> None:
    done = make(site, "status")
    assert done.returncode == 0, said(done)
    for host in site.bed.hosts:  # a person is told of the servers, not of a tunnel's ends
        assert f"{host.ip}:{PORT}" in done.stdout
    assert "committed and read back" in done.stdout
    done = make(site, "verify")
    assert done.returncode == 0, said(done)[-4000:]


def test_a_load_is_audited_at_once_and_again_later(site: Site, kept: Path) -> None:
    done = make(site, "load", *SHORT)
    assert done.returncode == 0, said(done)
    run = runs.find()
    target = read_manifest(run).target
    assert target.addresses == ",".join(f"{host.ip}:{PORT}" for host in site.bed.hosts)
    assert target.inventory == str(site.inventory)
    for step in (["status"], ["restart"]):  # the next day: other tunnels, and other processes
        found = read_audit(run)
        assert found
        assert found.verdict == "passed"
        assert found.transfers_checked > 0
        (run / "audit.json").unlink()
        done = make(site, *step)
        assert done.returncode == 0, said(done)
        done = make(site, "audit")
        assert done.returncode == 0, said(done)
        assert f"audit passed: {WHOSE}: {found.transfers_checked:,} transfers" in done.stdout
    for command in (["report"], ["load-compare", f"A={run.name}", f"B={run.name}"]):
        done = make(site, *command)
        assert done.returncode == 0, said(done)


def test_a_workload_s_history_is_recorded_and_judged(site: Site) -> None:
    done = make(site, "workload", "DURATION=2s")
    assert done.returncode == 0, said(done)
    assert f"history passed: {WHOSE}: " in done.stdout


def test_a_search_for_the_capacity_is_audited(site: Site, kept: Path) -> None:
    """Whether there is a rate within the bound is the machine's business, and not in question."""
    few = "--start-rate 50 --window-s 1 --wallets 50"
    done = make(site, "capacity", "USERS=2", "P99_MS=200", f"LOAD={few}")
    assert "capacity: " in done.stdout, said(done)
    assert (runs.find() / "capacity.json").is_file()
    found = read_audit(runs.find())
    assert found
    assert found.verdict == "passed"


def test_another_cluster_s_runs_and_backups_are_refused(site: Site, kept: Path) -> None:
    """An inventory of the same servers, whose cluster has another id and name."""
    done = make(site, "backup")
    assert done.returncode == 0, said(done)
    backups = Path(site.exported["BACKUP_DIR"])
    (taken,) = (backups / site.name).glob("*Z")
    other = Site(site.bed, settings=dict(site.settings), exported=site.exported, name="other")
    other.variables["CLUSTER_ID"] = "8"
    other.with_emulator()
    theirs = "expected one of cluster 8 (other, emulator)"
    before, run = [prints(host) for host in site.bed.hosts], runs.find()
    held = {file: file.read_bytes() for file in (*run.iterdir(), *taken.iterdir())}
    for command, words in (
        (["audit"], f"{theirs}, found none in {kept}; the newest is {run.name} of {WHOSE}. Fix: "),
        (["audit", f"RUN={run.name}"], f"{theirs}, found {run.name} of {WHOSE}. Fix: "),
        (["report", f"RUN={run.name}"], f"{theirs}, found {run.name} of {WHOSE}. Fix: "),
        (["backup-verify"], f"expected a backup of cluster 8 (other, emulator) under {backups}"),
        (["backup-verify", f"FROM={taken}"], f"found one of {WHOSE} with 3"),
        (["restore", f"FROM={taken}", "CONFIRM=yes"], f"found one of {WHOSE} with 3"),
    ):
        refused = make(other, *command)
        assert refused.returncode != 0, command
        assert words in refused.stderr, said(refused)
        assert "Error 2" in refused.stderr
    assert [prints(host) for host in site.bed.hosts] == before
    assert {file: file.read_bytes() for file in held} == held


def test_a_second_inventory_of_the_name_touches_no_server(site: Site) -> None:
    second = site.inventory.with_name("copied.py")
    second.write_text(site.inventory.read_text())
    before = [prints(host) for host in site.bed.hosts]
    try:
        for command in (["make", "down"], ["make", "backup"], ["make", "up"], ["make", "status"]):
            done = site.run(*command, f"INVENTORY={second}")
            assert done.returncode != 0, command
            assert f"{second}: expected a deployment's name that no other" in said(done)
            assert f"found 'remote', as which {site.inventory} has deployed" in said(done)
        done = site.run("pyinfra", "--yes", str(second), "tasks.replica.stop")
        assert done.returncode != 0
        assert f"as which {site.inventory} has deployed" in said(done)
    finally:
        second.unlink()
    assert [prints(host) for host in site.bed.hosts] == before
