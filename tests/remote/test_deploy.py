"""The whole way on servers: bare hosts, deploy, verify, load, audit, repeat, roll a change, reboot.

With the genuine server, as a unit and in Docker. The tests of a runtime run in the order in which
they are written: each goes on where the one before ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from loadtests.run.result import Result, read_result
from tests.docker.sandbox import has_base
from tests.remote.bed import make_bed
from tests.remote.image import Flavour
from tests.remote.site import PORT, Site, changes, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]

FLAVOURS: dict[str, Flavour] = {"systemd": "bare", "docker": "engine"}
LOAD_WAIT_S = 600
#: Containers on busy machines took 154 s; the load is ended when the roll is.
LONGER_THAN_A_ROLL_S = 500


@pytest.fixture(scope="module", params=FLAVOURS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Three hosts that a deploy has reached for the first time."""
    runtime = request.param
    if runtime == "docker" and not has_base("tigerbeetle"):
        pytest.skip("no genuine base image: .ci/provision-docker base")
    with make_bed(FLAVOURS[runtime]) as bed:
        made = Site(bed, runtime=runtime).write()
        if runtime == "docker":
            made.build_image()
        started = time.monotonic()
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        print(f"{runtime}: first deploy {time.monotonic() - started:.0f} s")
        yield made


def lives(site: Site) -> list[str]:
    """Each replica's process and when it was started, by the host's own /proc."""
    script = "for pid in $(pgrep -x tigerbeetle); do cut -d' ' -f1,22 /proc/$pid/stat; done"
    found = [host.read(script) for host in site.bed.hosts]
    assert all(len(processes.splitlines()) == 1 for processes in found), found
    return found


def loading(site: Site, name: str, seconds: int) -> subprocess.Popen[str]:
    """A load that runs beside the test; its audit is its exit code."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cluster",
            "load",
            "--users",
            "4",
            "--run-time",
            f"{seconds}s",
            "--wallets",
            "100",
            "--warmup-s",
            "0",
            "--deadline-s",  # a view change on a busy machine is slow: no answer at all is a fault
            "50",
        ],
        cwd=REPOSITORY,
        env=site.environ | {"LOADTESTS_RUNS": str(runs(site, name))},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def runs(site: Site, name: str) -> Path:
    """Where this load alone keeps its run."""
    return site.bed.directory / name


def finished(site: Site, load: subprocess.Popen[str], name: str, timeout_s: float) -> Result:
    """Wait for the load; it passed its audit, and no action failed or was left unknown."""
    printed, _ = load.communicate(timeout=timeout_s)
    assert load.returncode == 0, printed[-4000:]
    (run,) = (file.parent for file in runs(site, name).glob("*/run.json"))
    result = read_result(run)
    assert result is not None
    assert result.window.ok > 0
    assert (result.window.error, result.window.unknown) == (0, 0), printed[-2000:]
    return result


def test_verify_finds_what_was_deployed(site: Site) -> None:
    done = site.run("pytest", "tests/infra", "--inventory", str(site.inventory))
    assert done.returncode == 0, said(done)[-4000:]
    assert " passed" in said(done)


def test_status_says_healthy(site: Site) -> None:
    done = site.run("make", "status")
    assert done.returncode == 0, said(done)


def test_a_second_deploy_changes_nothing_and_restarts_nothing(site: Site) -> None:
    before = lives(site)
    done = site.up()
    assert done.returncode == 0, said(done)[-4000:]
    assert changes(done) == []
    assert lives(site) == before


def test_an_outsider_reaches_no_replica_and_a_listed_client_does(site: Site) -> None:
    for host in site.bed.hosts:
        assert site.bed.client.reaches(host.ip, PORT)
        assert not site.bed.outsider.reaches(host.ip, PORT)


def test_a_short_load_passes_its_audit(site: Site) -> None:
    finished(site, loading(site, "short", 5), "short", 120)


def test_a_changed_setting_rolls_under_load_and_nothing_is_lost_or_fails(site: Site) -> None:
    before = lives(site)
    load = loading(site, "rolling", LONGER_THAN_A_ROLL_S)
    try:
        wait_until(
            lambda: (bool(list(runs(site, "rolling").glob("*/run.json"))), "no run yet"),
            what="the load to begin",
            timeout_s=LOAD_WAIT_S,
        )
        site.variables["CACHE_GRID"] = "128MiB"
        site.write()
        started = time.monotonic()
        done = site.up()
        print(f"{site.runtime}: rolled in {time.monotonic() - started:.0f} s")
        assert done.returncode == 0, said(done)[-4000:]
        assert load.poll() is None, "the load ended before the roll: nothing was shown"
        os.killpg(load.pid, signal.SIGINT)  # as a terminal does it; it ends with its audit
        result = finished(site, load, "rolling", 240)
    finally:
        if load.poll() is None:
            os.killpg(load.pid, signal.SIGKILL)
    print(f"{site.runtime}: {result.transfers_acknowledged} acknowledged")
    after = lives(site)
    assert all(now != then for now, then in zip(after, before, strict=True))
    for host in site.bed.hosts:
        assert "--cache-grid=128MiB" in host.read("ps -eo args")


def test_after_a_power_cut_of_one_host_its_replica_is_back_by_itself(site: Site) -> None:
    host = site.bed.hosts[1]
    host.switch_off()
    host.switch_on()
    wait_until(
        lambda: (site.run("make", "status").returncode == 0, "not healthy"),
        what="the replica to be back",
        timeout_s=1200,
        interval_s=2,
    )
    assert changes(site.up()) == []
    assert not site.bed.outsider.reaches(host.ip, PORT)
