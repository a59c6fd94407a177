"""This machine deploys and is no client: all that reads or loads the cluster goes through SSH.

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
from tests.remote.site import PORT, Site, said

pytestmark = [pytest.mark.remote, pytest.mark.long]

SHORT = ["DURATION=3s", "USERS=5", "LOAD=--warmup-s 1 --wallets 50"]


@pytest.fixture(scope="module")
def site(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three servers that let in nobody but one another, and a client that is not this machine."""
    made = Site(bed, settings={"clients": [f"{bed.client.ip}/32"]}).with_emulator()
    made.exported["LOADTESTS_RUNS"] = str(tmp_path_factory.mktemp("runs"))
    done = made.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    for host in bed.hosts:
        with socket.socket() as knocking:
            knocking.settimeout(1)
            assert knocking.connect_ex((host.ip, PORT)) != 0
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
    for _ in range(2):
        found = read_audit(run)
        assert found
        assert found.verdict == "passed"
        assert found.transfers_checked > 0
        (run / "audit.json").unlink()
        done = make(site, "audit")
        assert done.returncode == 0, said(done)
    for command in (["report"], ["load-compare", f"A={run.name}", f"B={run.name}"]):
        done = make(site, *command)
        assert done.returncode == 0, said(done)


def test_a_workload_s_history_is_recorded_and_judged(site: Site) -> None:
    done = make(site, "workload", "DURATION=2s")
    assert done.returncode == 0, said(done)


def test_a_search_for_the_capacity_is_audited(site: Site, kept: Path) -> None:
    """Whether there is a rate within the bound is the machine's business, and not in question."""
    few = "--start-rate 50 --window-s 1 --wallets 50"
    done = make(site, "capacity", "USERS=2", "P99_MS=200", f"LOAD={few}")
    assert "capacity: " in done.stdout, said(done)
    assert (runs.find() / "capacity.json").is_file()
    found = read_audit(runs.find())
    assert found
    assert found.verdict == "passed"
