"""A load from three hosts of its own, on three genuine replicas: one command, and one verdict.

Whatever ends it, and whoever is lost meanwhile: it ends within its bound, says *unknown* where
something is, and nothing runs on any host afterwards.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from loadtests.hosts import bundle, units
from loadtests.run.result import Audit, Result, read_audit, read_result
from tests.remote.bed import make_bed
from tests.remote.machine import Machine
from tests.remote.site import Site, said

pytestmark = [pytest.mark.remote, pytest.mark.genuine, pytest.mark.long]

#: Bounds are ten times what was seen.
END_TIMEOUT_S = 900
#: Never reached: the tests end these runs.
ENDLESS_S = 1800


@dataclass
class Loaded:
    """A cluster with load hosts, and where runs are kept here."""

    site: Site
    runs: Path

    @property
    def hosts(self) -> list[Machine]:
        return self.site.bed.load_hosts

    @property
    def newest(self) -> Path:
        return max(self.runs.glob("*/run.json"), key=lambda file: file.stat().st_mtime_ns).parent

    def load(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.site.run("python", "-m", "cluster", "load", *words)

    @contextmanager
    def endless(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A load that acts on all hosts by now, and leads a session as at a terminal."""
        before = set(self.runs.glob("*"))
        process = subprocess.Popen(
            [
                *(str(REPOSITORY / ".venv/bin/python"), "-m", "cluster", "load"),
                *("--users", "30", "--run-time", str(ENDLESS_S), *words),
            ],
            cwd=REPOSITORY,
            env=self.site.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            wait_until(lambda: self._acts(before, process), what="a load", timeout_s=END_TIMEOUT_S)
            yield process
        finally:
            for child in children_of(process):
                child.kill()
            process.kill()
            process.communicate()
            for host in self.hosts:  # before another begins
                wait_until_nothing_runs(host)

    def _acts(self, before: set[Path], process: subprocess.Popen[str]) -> tuple[bool, str]:
        assert process.poll() is None, process.communicate()[0]
        new = [run for run in self.runs.glob("*") if run not in before and run.is_dir()]
        if not new:
            return False, "no run yet"
        written = [_size_there(host, new[0].name) for host in self.hosts]
        return all(written), f"{written} bytes on each host"


def _size_there(host: Machine, run: str) -> int:
    seen = host.inside(f"cat {units.directory(run)}/record-*.bin | wc -c").stdout.strip()
    return int(seen or 0)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with make_bed("bare", load_hosts=3) as bed:
        runs = tmp_path_factory.mktemp("runs")
        site = Site(bed, exported={"LOADTESTS_RUNS": str(runs)})
        site.write(load_hosts=[host.ip for host in bed.load_hosts])
        done = site.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        yield Loaded(site, runs)


def finished(run: Path) -> tuple[Result, Audit]:
    result, audit = read_result(run), read_audit(run)
    assert result
    assert audit
    return result, audit


def masters_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in children_of(process) if "--master" in command_of(child)]


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    return psutil.Process(process.pid).children(recursive=True)


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def ctrl_c(process: subprocess.Popen[str]) -> None:
    """As a terminal does it: everybody in the foreground is told."""
    process.send_signal(signal.SIGINT)
    for master in masters_of(process):
        master.send_signal(signal.SIGINT)


def still_there(host: Machine, run: str) -> str:
    """What a run has left on a host: units, processes, listeners of a forward, its record."""
    return host.read(
        "systemctl list-units --all --plain --no-legend 'wallet-load-*' | awk '{print $1}';"
        " pgrep -af '[l]ocust' || true;"
        " ss -Hltnp | grep sshd | grep -v ':22 ' || true;"
        f" ls -d {units.directory(run)} 2>/dev/null || true"
    )


def wait_until_nothing_runs(host: Machine, run: str = "none") -> None:
    """A forward ends a moment after the command that has opened it."""

    def look() -> tuple[bool, str]:
        seen = still_there(host, run)
        return not seen, seen

    wait_until(look, what=f"{host.name} to run no worker", timeout_s=END_TIMEOUT_S)


def test_one_command_loads_from_all_hosts_and_proves_it_once(loaded: Loaded) -> None:
    done = loaded.load("--users", "60", "--run-time", "10", "--processes", "2")
    assert done.returncode == 0, said(done)
    result, audit = finished(loaded.newest)
    assert audit.verdict == "passed"
    assert (result.workers, result.complete) == (6, True)
    assert {each.worker for each in result.by_worker} == set(range(6))
    named = [each.host for each in result.by_worker]
    assert sorted(named) == sorted(host.ip for host in loaded.hosts for _ in range(2))
    for each in result.by_worker:
        assert each.actions_per_s > 0
        assert each.clock_offset_ms is not None
        assert abs(each.clock_offset_ms) < 1000
        assert each.rtt_ms
    assert {path.name for path in loaded.newest.glob("record-*")} == {
        f"record-{number}.bin" for number in range(6)
    }
    page = (loaded.newest / "report.html").read_text(encoding="utf-8")
    assert all(f"on {host.ip}" in page for host in loaded.hosts)
    for host in loaded.hosts:
        wait_until_nothing_runs(host, loaded.newest.name)


def test_a_second_load_brings_nothing_and_a_rate_is_shared(loaded: Loaded) -> None:
    asked = f"find {bundle.PLACE} -maxdepth 1 -printf '%p %C@\\n' | sort"
    before = [host.read(asked) for host in loaded.hosts]
    done = loaded.load("--rate", "300", "--run-time", "10")
    assert done.returncode == 0, said(done)
    assert "bringing" not in said(done)
    assert [host.read(asked) for host in loaded.hosts] == before
    result, _ = finished(loaded.newest)
    for each in result.by_worker:
        assert 50 < each.actions_per_s < 150


def test_a_search_uses_all_hosts_and_names_its_limit(loaded: Loaded) -> None:
    bound = ("--p99-ms", "0.001", "--start-rate", "8", "--window-s", "2")  # which nothing meets
    done = loaded.site.run("python", "-m", "cluster", "capacity", *bound)
    assert done.returncode == 3, said(done)
    result, audit = finished(loaded.newest)
    assert audit.verdict == "passed"
    assert len({each.host for each in result.by_worker if each.actions_per_s > 0}) == 3
    found = json.loads((loaded.newest / "capacity.json").read_text())
    assert any(who in found["note"] for who in ("generator", "network", "cluster"))
    for host in loaded.hosts:
        wait_until_nothing_runs(host, loaded.newest.name)


def test_a_load_host_that_is_lost_leaves_its_share_unknown_and_the_others_go_on(
    loaded: Loaded,
) -> None:
    lost, others = loaded.hosts[2], loaded.hosts[:2]
    with loaded.endless() as process:
        run = loaded.newest.name
        lost.switch_off()
        try:
            sizes = [_size_there(host, run) for host in others]
            wait_until(
                lambda: (
                    all(
                        _size_there(h, run) > s + 2**20 for h, s in zip(others, sizes, strict=True)
                    ),
                    "not yet",
                ),
                what="the others to go on",
                timeout_s=END_TIMEOUT_S,
            )
            ctrl_c(process)
            said_, _ = process.communicate(timeout=END_TIMEOUT_S)
        finally:
            lost.switch_on()
    assert process.returncode == 4, said_
    result, audit = finished(loaded.runs / run)
    assert audit.verdict == "unknown"
    assert not [check for check in audit.checks if check.verdict == "failed"]
    assert [each.host for each in result.by_worker if not each.complete] == [lost.ip]
    assert f"{lost.ip} is heard of no more" in [fault.what for fault in result.faults][-1]
    assert lost.ip in said_
    for host in others:
        wait_until_nothing_runs(host, run)
    assert "wallet-load" not in lost.read("systemctl list-units --all --plain 'wallet-load-*'")


def test_ctrl_c_ends_it_in_order_with_the_whole_record(loaded: Loaded) -> None:
    with loaded.endless() as process:
        run = loaded.newest.name
        ctrl_c(process)
        said_, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 0, said_
    assert finished(loaded.runs / run)[1].verdict == "passed"
    for host in loaded.hosts:
        wait_until_nothing_runs(host, run)


def test_a_killed_master_leaves_nothing_running_and_no_verdict_passed(loaded: Loaded) -> None:
    with loaded.endless() as process:
        run = loaded.newest.name
        (master,) = masters_of(process)
        master.kill()
        said_, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 4, said_
    audit = read_audit(loaded.runs / run)
    assert audit
    assert audit.verdict == "unknown"
    assert not [check for check in audit.checks if check.verdict == "failed"]
    for host in loaded.hosts:
        wait_until_nothing_runs(host, run)


def test_a_killed_command_leaves_nothing_running_and_its_record_comes_home_later(
    loaded: Loaded,
) -> None:
    with loaded.endless() as process:
        run = loaded.newest
        (master,) = masters_of(process)
        process.kill()
        for host in loaded.hosts:
            wait_until_nothing_runs(host)
        wait_until(
            lambda: (not master.is_running() or master.status() == psutil.STATUS_ZOMBIE, "runs"),
            what="its master to end",
            timeout_s=END_TIMEOUT_S,
        )
    there = [_size_there(host, run.name) for host in loaded.hosts]
    assert all(there)
    done = loaded.load("--run-time", "5")
    assert done.returncode == 0, said(done)
    assert f"brought the rest of {run.name}" in said(done)
    assert sorted(file.stat().st_size for file in run.glob("record-*.bin")) == sorted(there)
    for host in loaded.hosts:
        wait_until_nothing_runs(host, run.name)


def test_a_host_whose_ssh_is_cut_is_unknown_and_its_worker_ends_by_itself(loaded: Loaded) -> None:
    cut = loaded.hosts[1]
    with loaded.endless() as process:
        run = loaded.newest.name
        cut.read("systemctl stop ssh; pkill -KILL sshd; true")
        try:
            ctrl_c(process)
            said_, _ = process.communicate(timeout=END_TIMEOUT_S)
            assert process.returncode == 4, said_
            wait_until(
                lambda: (
                    "wallet-load" not in (seen := cut.read("systemctl list-units 'wallet-load-*'")),
                    seen,
                ),
                what="its worker to end",
                timeout_s=END_TIMEOUT_S,
            )
        finally:
            cut.read("systemctl start ssh")
    _, audit = finished(loaded.runs / run)
    assert audit.verdict == "unknown"
    assert "its workers end by themselves" in said_
    for host in loaded.hosts:
        if host is not cut:
            wait_until_nothing_runs(host, run)


def test_a_host_that_the_firewall_keeps_out_is_refused_before_anything(loaded: Loaded) -> None:
    loaded.site.write(load_hosts=[loaded.site.bed.outsider.ip])
    try:
        done = loaded.load("--run-time", "5")
    finally:
        loaded.site.write(load_hosts=[host.ip for host in loaded.hosts])
    assert done.returncode == 2, said(done)
    assert "to reach a majority of the replicas" in said(done)
    assert "make up INVENTORY=" in said(done)
    assert not loaded.site.bed.outsider.read(f"ls {bundle.PLACE} 2>/dev/null || true")


def test_a_load_that_runs_there_already_is_not_disturbed(loaded: Loaded) -> None:
    host = loaded.hosts[0]
    host.read("systemd-run --quiet --collect --unit=wallet-load-other-0 sleep 600")
    try:
        done = loaded.load("--run-time", "5")
        assert done.returncode == 2, said(done)
        assert "expected no load to run there, found wallet-load-other-0.service" in said(done)
    finally:
        host.read("systemctl stop wallet-load-other-0")
