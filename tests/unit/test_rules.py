"""A server that is not fit is refused with one line, from what it said, before any change."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cluster import config
from cluster.checks import facts, rules
from cluster.checks.facts import DataFile, Facts
from cluster.config import Cluster, servers
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from tests.unit.test_servers import HOSTS, env_text

GIB = 1024**3
FILE = DataFile("7_0.tigerbeetle", 4096, b"")


@pytest.fixture(name="cluster")
def described(tmp_path: Path) -> Cluster:
    file = tmp_path / "production.env"
    file.write_text(env_text())
    return config.load(file, {}, lambda cluster: None)


@pytest.fixture
def deployment(cluster: Cluster, tmp_path: Path) -> Deployment:
    return Deployment(
        name="production",
        engine="tigerbeetle",
        runtime="systemd",
        cluster=cluster,
        state_dir=tmp_path,
        settings=servers.Settings.model_validate({"env_file": "x", "runtime": "systemd"}),
    )


def fit(index: int = 0) -> Facts:
    """A server as it should be, before its first deployment."""
    return Facts(
        kernel="6.1.0-18-amd64",
        machine="x86_64",
        memory_bytes=8 * GIB,
        directory="/var/lib/tigerbeetle",
        disk_bytes=100 * GIB,
        filesystem="ext2/ext3",
        has_direct_io=True,
        systemd="252",
        docker="26.1.5",
        compose="2.26.1",
        addresses=frozenset({"127.0.0.1", HOSTS[index]}),
        is_synchronised=True,
        peers={f"{host}:3000": "refused" for host in HOSTS if host != HOSTS[index]},
    )


def settings(deployment: Deployment, **changes: Any) -> Deployment:
    assert deployment.settings
    runtime = changes.get("runtime", deployment.runtime)
    changed = deployment.settings.model_copy(update=changes)
    return deployment.model_copy(update={"settings": changed, "runtime": runtime})


@pytest.mark.parametrize("runtime", ["systemd", "docker"])
def test_a_fit_server_passes(deployment: Deployment, runtime: str) -> None:
    made = settings(deployment, runtime=runtime)
    rules.check(made, {index: fit(index) for index in range(3)})


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"kernel": "5.10.0"}, "expected kernel 5.11 or newer, found 5.10.0"),
    ({"kernel": "4.19.0"}, "expected kernel 5.11 or newer, found 4.19.0"),
    ({"kernel": ""}, "found none"),
    ({"io_uring_disabled": "2"}, "expected kernel.io_uring_disabled = 0, found 2"),
    ({"systemd": ""}, "expected systemd 247 or newer, found none"),
    ({"systemd": "241"}, "found 241"),
    ({"machine": "riscv64"}, "found riscv64"),
    ({"addresses": frozenset({"127.0.0.1"})}, f"expected a server that has {HOSTS[0]}"),
    ({"addresses": frozenset({HOSTS[1]})}, "which is replica 1's. Fix: put ssh_hosts into"),
    ({"owner": "postgres"}, "expected uid 10001 to be free, or tigerbeetle's, found postgres's"),
    ({"listening": frozenset({HOSTS[0]}), "holder": "pid 7 (nc)"}, "found pid 7 (nc) listening"),
    ({"listening": frozenset({"0.0.0.0"})}, f"expected {HOSTS[0]}:3000 to be free"),
    ({"listening": frozenset({"::"})}, "found a process listening"),
    ({"filesystem": "tmpfs"}, "found tmpfs, which is memory"),
    ({"filesystem": "nfs"}, "found nfs, which another machine or a program serves"),
    ({"filesystem": "v9fs"}, "found v9fs, which another machine or a program serves"),
    ({"filesystem": "fuseblk"}, "found fuseblk, which another machine or a program serves"),
    ({"has_direct_io": False}, "expected direct I/O under /var/lib/tigerbeetle"),
    ({"disk_bytes": GIB}, "expected 1.25 GiB free"),
    ({"memory_bytes": 2 * GIB}, "expected 2.6 GiB of memory for 1 replica, found 2.0 GiB free"),
    ({"is_synchronised": False}, "expected a clock that a time service keeps right"),
    ({"running": {"docker": 7}}, "found the container tigerbeetle-0 running too"),
]


@pytest.mark.parametrize(("changes", "says"), UNFIT, ids=[str(c) for c, _ in UNFIT])
def test_an_unfit_server_is_refused(
    deployment: Deployment, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refusal) as refused:
        rules.check(deployment, {0: replace(fit(), **changes)})
    line = str(refused.value)
    assert line.startswith("replica 0's server: expected ")
    assert says in line
    assert ". Fix: " in line
    assert "\n" not in line


def test_a_server_of_this_kind_at_the_port_may_be_adopted(deployment: Deployment) -> None:
    seen = replace(fit(), listening=frozenset({HOSTS[0]}))
    adopt = f"Fix: make adopt {deployment.named}, if it is this very replica; or stop it"
    for holder, is_named in (("pid 7 (tigerbeetle)", True), ("pid 7 (nc)", False), ("", False)):
        with pytest.raises(Refusal) as refused:
            rules.check(deployment, {0: replace(seen, holder=holder)})
        assert (adopt in str(refused.value)) == is_named


NO_DOCKER: list[tuple[dict[str, Any], str]] = [
    ({"docker": ""}, "found Docker none"),
    ({"docker": "19.03.1"}, "found Docker 19.03.1"),
    ({"compose": ""}, "Compose none"),
    ({"compose": "1.29.2"}, "Compose 1.29.2"),
    ({"running": {"systemd": 7}}, "found the unit tigerbeetle-0 running too"),
]


@pytest.mark.parametrize(("changes", "says"), NO_DOCKER, ids=[s for _, s in NO_DOCKER])
def test_a_server_unfit_for_docker_is_refused(
    deployment: Deployment, changes: dict[str, Any], says: str
) -> None:
    made = settings(deployment, runtime="docker")
    with pytest.raises(Refusal, match=says):
        rules.check(made, {0: replace(fit(), **changes)})


#: Of an engine that may not raise limits, and of one that may: in a user namespace none can.
MAY_NOT, MAY = "000001fffeffffff 8388608", "000001ffffffffff 8388608"
INITIAL, NESTED = "0 0 4294967295", "0 100000 65536"


def test_an_engine_that_may_raise_no_limits_is_given_its_own_and_says_so(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    made = settings(deployment, runtime="docker")
    rules.check(made, {0: replace(fit(), engine_limits=f"{MAY_NOT} {INITIAL}")})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("memlock: the engine of replica 0's server may raise no limits: 8388608")
    rules.check(made, {0: replace(fit(), engine_limits=f"{MAY} {INITIAL}")})
    rules.check(deployment, {0: replace(fit(), engine_limits=f"{MAY_NOT} {INITIAL}")})  # units
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("capabilities", [MAY_NOT, MAY])
def test_an_engine_whose_capability_locks_nothing_is_refused_before_any_change(
    deployment: Deployment, capabilities: str
) -> None:
    made = settings(deployment, runtime="docker")
    with pytest.raises(Refusal, match=r"MEMLOCK: expected the engine of replica 0's .* Fix: give"):
        rules.check(made, {0: replace(fit(), engine_limits=f"{capabilities} {NESTED}")})


@pytest.mark.parametrize("changes", [{"docker": ""}, {"compose": ""}])
def test_units_need_no_docker(deployment: Deployment, changes: dict[str, Any]) -> None:
    rules.check(deployment, {0: replace(fit(), **changes)})


def test_a_running_replica_needs_no_more_memory_or_disk_and_may_hold_its_port(
    deployment: Deployment,
) -> None:
    running = replace(
        fit(),
        running={"systemd": 7},
        memory_bytes=0,
        disk_bytes=0,
        data_files=(FILE,),
        listening=frozenset({HOSTS[0]}),
        owner="tigerbeetle",
    )
    rules.check(deployment, {0: running})


def running(**changes: Any) -> Facts:
    """A server whose replica runs: with 512 MiB of grid cache it holds 2.6 GiB."""
    addresses = ",".join(f"{host}:3000" for host in HOSTS)
    started = f"/x/tigerbeetle start --addresses={addresses} --cache-grid=512MiB /x/7_0.tigerbeetle"
    as_it_is: dict[str, Any] = {
        "running": {"systemd": 7},
        "data_files": (FILE,),
        "arguments": started,
    }
    return replace(fit(), **as_it_is | changes)


@pytest.mark.parametrize(
    ("grid", "free", "says"),
    [
        ("64GiB", 8 * GIB, "66.1 GiB of memory for 1 replica, found 8.0 GiB free beside 2.6 GiB"),
        ("1GiB", GIB * 4 // 10, "expected 3.1 GiB of memory for 1 replica, found 0.4 GiB free"),
        ("1GiB", GIB * 6 // 10, ""),
        ("64MiB", 0, ""),
    ],
)
def test_a_running_replica_that_will_take_more_than_there_is_is_refused(
    deployment: Deployment, grid: str, free: int, says: str
) -> None:
    """It gives back what it holds when it restarts, and nothing more."""
    made = with_grid(deployment, grid)
    found = "".join(f.text for f in rules.examine(made, {0: running(memory_bytes=free)}))
    assert says in found
    assert bool(says) == bool(found)


def with_grid(deployment: Deployment, grid: str) -> Deployment:
    cluster = deployment.cluster.model_copy(update={"cache_grid": grid})
    return deployment.model_copy(update={"cluster": cluster})


def test_replicas_that_share_a_server_are_counted_together(deployment: Deployment) -> None:
    made = settings(deployment, development=True)
    shared: dict[str, Any] = {"addresses": frozenset(HOSTS), "memory_bytes": 7 * GIB}
    seen = {0: replace(fit(0), **shared), 1: running(**shared), 2: replace(fit(2), **shared)}
    rules.check(made, seen)  # one of them runs, and holds its part
    seen[1] = replace(fit(1), **shared)
    with pytest.raises(Refusal, match=r"7\.7 GiB of memory for 3 replicas, found 7\.0 GiB free"):
        rules.check(made, seen)
    full = {i: replace(f, memory_bytes=8 * GIB, disk_bytes=3 * GIB) for i, f in seen.items()}
    with pytest.raises(Refusal, match=r"3\.75 GiB free in /var/lib/tigerbeetle for 3 data files"):
        rules.check(made, full)


def test_a_running_replica_s_new_port_must_be_free(deployment: Deployment) -> None:
    held: dict[str, Any] = {"listening": frozenset({HOSTS[0]}), "holder": "pid 9 (nc)"}
    rules.check(deployment, {0: running(**held)})  # by itself
    old = running(**held, arguments="start --addresses=10.1.0.11:2999,x,y --cache-grid=512MiB f")
    with pytest.raises(Refusal, match=f"expected {HOSTS[0]}:3000 to be free, found pid 9"):
        rules.check(deployment, {0: old})


def test_another_address_s_listener_on_the_same_port_is_no_conflict(deployment: Deployment) -> None:
    rules.check(deployment, {0: replace(fit(), listening=frozenset({"127.0.0.1"}))})


def test_a_clock_is_let_be_where_the_inventory_says_so(deployment: Deployment) -> None:
    made = settings(deployment, check_clock=False)
    rules.check(made, {0: replace(fit(), is_synchronised=False)})
    seen = {i: replace(fit(i), clock_offset_s=100.0 * i) for i in range(3)}
    rules.check(made, seen)


TOGETHER: list[tuple[Mapping[str, Any], str]] = [
    ({"addresses": frozenset(HOSTS[:2])}, "found one that is replica 0's too"),
    ({"peers": {f"{HOSTS[2]}:3000": "silent"}}, f"expected to reach replica 2 at {HOSTS[2]}:3000"),
    ({"clock_offset_s": 6.0}, "expected a clock within 5 s of replica 0's, found one 6.0 s ahead"),
]


@pytest.mark.parametrize(("changes", "says"), TOGETHER, ids=[s for _, s in TOGETHER])
def test_servers_that_do_not_fit_together_are_refused(
    deployment: Deployment, changes: Mapping[str, Any], says: str
) -> None:
    seen = {0: fit(0), 1: replace(fit(1), **changes), 2: fit(2)}
    with pytest.raises(Refusal, match="replica 1's server: ") as refused:
        rules.check(deployment, seen)
    assert says in str(refused.value)


def test_a_peer_that_answers_or_refuses_was_reached(deployment: Deployment) -> None:
    seen = {i: fit(i) for i in range(3)}
    seen[1] = replace(seen[1], peers={f"{HOSTS[0]}:3000": "open", f"{HOSTS[2]}:3000": "refused"})
    rules.check(deployment, seen)


def test_one_machine_may_have_two_replicas_in_a_rehearsal(deployment: Deployment) -> None:
    seen = {i: replace(fit(i), addresses=frozenset(HOSTS)) for i in range(3)}
    rules.check(settings(deployment, development=True), seen)


HEAD = bytes(range(256)) * 384
SAID = f"""\
kernel 6.1.0-18-amd64
machine x86_64
io_uring_disabled 0
memory_kib 8388608
systemd 252
docker
compose 2.26.1-4
address 127.0.0.1
address 10.1.0.11
filesystem ext2/ext3
disk_kib 1024
direct_io yes
python 3.11.2
owner tigerbeetle
bootstrapping yes
data_file 7_0.tigerbeetle 1141374976 {base64.b64encode(gzip.compress(HEAD)).decode()}
unit 670
settings 0123456789abcdef
arguments /x/tigerbeetle start --addresses=10.1.0.11:3000 /x/7_0.tigerbeetle
container
listening 0B00010A
listening 00000000000000000000000001000000
holder pid 670 (tigerbeetle)
peer 10.1.0.12:3000 refused
peer 10.1.0.13:3000 silent
clock_synchronised yes
clock 1000.5
"""


def test_what_a_server_says_is_read() -> None:
    assert facts.parse(SAID.splitlines(), now=1000.0) == Facts(
        kernel="6.1.0-18-amd64",
        machine="x86_64",
        memory_bytes=8 * GIB,
        disk_bytes=1024**2,
        filesystem="ext2/ext3",
        has_direct_io=True,
        systemd="252",
        compose="2.26.1-4",
        python="3.11.2",
        owner="tigerbeetle",
        settings="0123456789abcdef",
        arguments="/x/tigerbeetle start --addresses=10.1.0.11:3000 /x/7_0.tigerbeetle",
        addresses=frozenset({"127.0.0.1", "10.1.0.11"}),
        running={"systemd": 670},
        listening=frozenset({"10.1.0.11", "::1"}),
        holder="pid 670 (tigerbeetle)",
        peers=MappingProxyType({"10.1.0.12:3000": "refused", "10.1.0.13:3000": "silent"}),
        is_bootstrapping=True,
        data_files=(DataFile("7_0.tigerbeetle", 1141374976, HEAD),),
        is_synchronised=True,
        clock_offset_s=0.5,
    )


def test_a_server_that_says_nothing_is_fit_for_nothing(deployment: Deployment) -> None:
    with pytest.raises(Refusal):
        rules.check(deployment, {0: facts.parse([], now=0.0)})
