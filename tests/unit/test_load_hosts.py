"""What is decided of load hosts, without any: who is fit, whose clock is right, what runs there."""

from __future__ import annotations

import shlex
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import cli as commands
from cluster.config import inventory, servers
from cluster.config.servers import Host
from cluster.refusal import Refusal
from cluster.runtimes import ssh
from loadtests.client.records import ACCOUNT, RECORD
from loadtests.hosts import bundle, clock, crew, observed, record, units
from loadtests.hosts.bundle import Bundle
from loadtests.hosts.clock import Offset
from loadtests.hosts.crew import Member
from loadtests.hosts.observed import Observed
from tests.unit.test_servers import HOSTS, env_file, hosts_of, refusal, without_overrides

__all__ = ["env_file", "without_overrides"]

SAID = """\
systemd 252
machine x86_64
libc glibc 2.36
cpus 8
memory_mib 12000
disk_mib 50000
io_uring_disabled 0
program systemd-run
program tar
program gzip
bundle env-0123456789ab
bundle code-0123456789ab
python 3.9 /usr/bin/python3
python 3.12 /usr/bin/python3.12
reached 10.1.0.11:3000 10.1.0.50 0.412
reached 10.1.0.12:3000 10.1.0.50 0.388
missed 10.1.0.13:3000 [Errno 111] Connection refused
free_port 40123
"""
FIT = observed.parse(SAID.splitlines())
RUN = "20260131-120000-1a2b"


def test_a_host_is_read_as_it_describes_itself() -> None:
    assert (FIT.python, FIT.python_path) == ("3.12", "/usr/bin/python3.12")
    assert FIT.bundles == {"env-0123456789ab", "code-0123456789ab"}
    assert FIT.reached == {f"10.1.0.{n}:3000": "10.1.0.50" for n in (11, 12)}
    assert FIT.missed == {"10.1.0.13:3000": "[Errno 111] Connection refused"}
    assert (FIT.cpus, FIT.memory_mib, FIT.free_port) == (8, 12000, 40123)
    assert FIT.rtt_ms == 0.388


def test_a_fit_host_is_taken_though_one_replica_of_three_is_away() -> None:
    observed.check("load1", FIT, 15, "INVENTORY=i.py")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.10"}, "expected Python 3.11 or newer, found Python 3.10"),
        ({"python": ""}, "expected Python 3.11 or newer, found none"),
        ({"systemd": ""}, "expected systemd 247 or newer, found none"),
        ({"systemd": "245"}, "expected systemd 247 or newer, found 245"),
        ({"machine": "riscv64"}, "expected x86_64 or aarch64, found riscv64"),
        ({"libc": ""}, "expected glibc 2.28 or newer, found another C library"),
        ({"libc": "glibc 2.27"}, "found glibc 2.27"),
        ({"programs": frozenset({"tar", "gzip"})}, "expected systemd-run on PATH"),
        ({"io_uring_disabled": "2"}, "found kernel.io_uring_disabled=2"),
        ({"memory_mib": 1000}, "1024 MiB of free memory for 2 workers, found 1000 MiB"),
        ({"disk_mib": 10}, "expected 1024 MiB free in /var/lib for the record, found 10 MiB"),
        ({"units": (f"wallet-load-{RUN}-0.service",)}, "expected no load to run there, found wall"),
        ({"reached": {}}, "add its address to the inventory's clients, then make up INVENTORY=i"),
        ({"reached": {"a": "b"}}, "make status INVENTORY=i"),
    ],
)
def test_an_unfit_host_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as refused:
        observed.check("load1", replace(FIT, **change), 2, "INVENTORY=i.py")
    assert said in str(refused.value)
    assert str(refused.value).startswith("load host load1: expected ")


def test_a_host_that_says_nothing_is_refused_and_not_a_traceback() -> None:
    with pytest.raises(Refusal, match=r"Python 3\.11"):
        observed.check("load1", observed.parse([]), 1, "")


def test_the_quickest_round_says_how_far_a_clock_is_off() -> None:
    rounds = [(100.0, 102.5, 101.0), (200.0, 202.005, 200.01), (300.0, 301.0, 304.0)]
    offset = clock.best(rounds)
    assert offset.seconds == pytest.approx(2.0)
    assert offset.within == pytest.approx(0.005)
    with pytest.raises(Refusal, match=r"found \+2\.0 s"):
        clock.check("load1", offset)


@pytest.mark.parametrize("offset", [Offset(0.9, 0.01), Offset(-0.9, 0.01), Offset(5.0, 4.5)])
def test_a_clock_that_may_be_right_is_not_refused(offset: Offset) -> None:
    clock.check("load1", offset)


def worker(**changes: Any) -> units.Worker:
    parts = {
        "run": RUN,
        "number": 4,
        "host": "load1",
        "clock_offset_ms": -1.25,
        "rtt_ms": 0.5,
        "master_port": 40123,
        "lasts_s": 1830.0,
        "python": "/usr/bin/python3.12",
        "environment": Bundle("env-0123456789ab", lambda _: None),
        "code": Bundle("code-0123456789ab", lambda _: None),
    }
    return units.Worker(**{**parts, **changes})


def test_a_worker_is_a_transient_unit_with_limits_and_no_account() -> None:
    words = shlex.split(units.start(worker()))
    assert words[:4] == [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit=wallet-load-{RUN}-4.service",
    ]
    for limit in ("DynamicUser=yes", "MemoryMax=2G", "CPUQuota=200%", "RuntimeMaxSec=1830"):
        assert f"--property={limit}" in words
    assert "--setenv=LOADTESTS_CLOCK_OFFSET_MS=-1.250" in words
    assert words[words.index("--master-host") + 1] == "127.0.0.1"
    assert words[words.index("--master-port") + 1] == "40123"


def test_a_run_s_units_are_stopped_and_no_other_run_s() -> None:
    assert units.stop(RUN) == f"systemctl stop 'wallet-load-{RUN}-*'"
    assert worker().unit.startswith(units.prefix(RUN))
    assert not worker(run="20260131-120000-1a2c").unit.startswith(units.prefix(RUN))


def test_what_is_brought_has_our_code_and_nothing_secret(tmp_path: Path) -> None:
    _, code = bundle.wanted(replace(FIT, python="3.11"))
    code._pack(tmp_path / "packed")
    with tarfile.open(tmp_path / "packed") as archive:
        names = archive.getnames()
    assert {"loadtests/locustfile.py", "cluster/__init__.py"} <= set(names)
    assert not [name for name in names if name.startswith(("env/", "inventories/", "runs/", "."))]


def test_a_changed_bundle_has_another_place_and_replaces_the_old_one_whole() -> None:
    new = Bundle("env-aaaaaaaaaaaa", lambda _: None)
    line = bundle.unpack(new, "/x/e.tar.gz", "/usr/bin/python3")
    place = f"{bundle.PLACE}/env-aaaaaaaaaaaa"
    assert line.index(f"-C {place}.part") < line.index(f"mv -T {place}.part {place}")
    assert "! -name env-aaaaaaaaaaaa" in line
    assert "-name 'env-*'" in line


def test_a_last_line_that_a_killed_worker_has_torn_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "record-0.bin").write_bytes(bytes(3 * RECORD.itemsize + 17))
    (tmp_path / "record-1.bin").write_bytes(bytes(2 * RECORD.itemsize))
    (tmp_path / "accounts-0.bin").write_bytes(bytes(ACCOUNT.itemsize))
    assert record.end_whole(tmp_path) == ["record-0.bin"]
    assert (tmp_path / "record-0.bin").stat().st_size == 3 * RECORD.itemsize
    assert (tmp_path / "record-1.bin").stat().st_size == 2 * RECORD.itemsize


def test_load_hosts_are_reached_as_servers_are_but_for_what_a_name_says(env_file: Path) -> None:
    named = ("10.1.0.50", "me@load1:2222")
    hosts = hosts_of(env_file, ssh_user="admin", load_hosts=named)
    one, two = inventory.of_hosts([data for _, data in hosts]).load_hosts
    assert (one.hostname, one.user, one.port, one.sudo) == ("10.1.0.50", "admin", 22, True)
    assert (two.hostname, two.user, two.port) == ("load1", "me", 2222)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("10.1.0.50", "10.1.0.50"), "found 10.1.0.50 twice"),
        ((HOSTS[1],), f"found {HOSTS[1]}, a replica's"),
        (("a b",), "load_hosts: expected [user@]host[:port], found a b"),
        ("10.1.0.50", "load_hosts: expected SSH names"),
    ],
)
def test_a_load_host_that_cannot_be_meant_is_refused(
    env_file: Path, capsys: pytest.CaptureFixture[str], named: object, said: str
) -> None:
    assert said in refusal(capsys, env_file, load_hosts=named)


def test_a_load_host_named_by_its_address_is_let_in_by_the_firewall(env_file: Path) -> None:
    hosts = hosts_of(env_file, load_hosts=("10.1.0.50", "load1"))
    settings = servers.settings_of(hosts[0][1])
    assert [str(address) for address in servers.load_addresses(settings)] == ["10.1.0.50"]


def test_observed_has_no_default_that_passes() -> None:
    with pytest.raises(Refusal):
        observed.check_machine("load1", Observed())


def test_more_workers_than_the_cluster_serves_are_refused_before_any_host_is_asked(
    env_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named, asked = tmp_path / "production.py", "env_file={!r}, runtime='systemd', load_hosts={!r}"
    given = asked.format(str(env_file), ("10.1.0.50", "10.1.0.51"))
    head = "from cluster.servers import on_servers"
    named.write_text(f"{head}\nhosts = on_servers('production', {given})\n")
    monkeypatch.setenv("INVENTORY", str(named))
    monkeypatch.setenv("RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("cluster.runtimes.ssh.run", None)
    assert commands.main(["load", "--processes", "8"]) == 2
    assert "worker processes: expected at most 15" in capsys.readouterr().err
    assert commands.main(["load", "--processes", "0"]) == 2
    assert "1 or more workers on each load host" in capsys.readouterr().err


def test_a_record_that_grows_is_brought_while_the_next_window_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, brought = tmp_path / RUN, threading.Event()
    run.mkdir()
    member = Member(Host.model_validate({"ssh_hostname": "load1"}), FIT, Offset(0.0, 0.0))
    monkeypatch.setattr(crew, "BRING_EVERY_S", 0.01)
    monkeypatch.setattr(record, "bring", lambda *_: brought.set())
    with crew.Crew((member,), each=1)._bringing(run):
        assert brought.wait(60)


def test_a_host_that_cannot_be_asked_meanwhile_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def fail(*_: object) -> int:
        tried.release()
        raise ssh.SshError("load1: away")

    (tmp_path / RUN).mkdir()
    member = Member(Host.model_validate({"ssh_hostname": "load1"}), FIT, Offset(0.0, 0.0))
    monkeypatch.setattr(crew, "BRING_EVERY_S", 0.01)
    monkeypatch.setattr(record, "bring", fail)
    with crew.Crew((member,), each=1)._bringing(tmp_path / RUN):
        assert all(tried.acquire(timeout=60) for _ in range(2))
