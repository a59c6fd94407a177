"""What this machine lacks is said in one line with a fix: the checks that need no engine."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import config
from cluster.checks import engine, observe, rules
from cluster.checks.facts import Facts
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes.container import parse
from cluster.runtimes.diagnoses import KNOWN, of_container, of_text
from cluster.runtimes.docker_engine import _require

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))
REPLICA = CLUSTER.replicas[0]
DEPLOYMENT = Deployment(
    name="fictional",
    engine="tigerbeetle",
    runtime="process",
    cluster=CLUSTER.on_loopback(),
    state_dir=Path("/fictional"),
)
ROOMY = replace(observe.OF_NO_ACCOUNT, memory_bytes=2**40, disk_bytes=2**40)


def here(**facts: Any) -> Mapping[int, Facts]:
    """A machine with memory and disk for all replicas, of which only these facts are known."""
    return {replica.index: replace(ROOMY, **facts) for replica in CLUSTER.replicas}


@pytest.mark.parametrize("kernel", ["4.19.0-27-amd64", "5.10.0", "unknown"])
def test_a_kernel_without_io_uring_is_refused(kernel: str) -> None:
    with pytest.raises(Refusal, match=r"kernel: expected 5\.11 or newer, found"):
        rules.check(DEPLOYMENT, here(kernel=kernel))


@pytest.mark.parametrize("value", ["1", "2"])
def test_io_uring_that_is_switched_off_is_refused(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysctl = tmp_path / "io_uring_disabled"
    sysctl.write_text(f"{value}\n")
    monkeypatch.setattr(observe, "IO_URING_SYSCTL", sysctl)
    found = here(kernel="6.1.0", io_uring_disabled=observe.io_uring_disabled())
    with pytest.raises(Refusal, match=f"expected 0, found {value}. Fix: sysctl"):
        rules.check(DEPLOYMENT, found)


@pytest.mark.parametrize("kernel", ["5.11.0", "5.15.167.4-microsoft-standard-WSL2", "6.18.44"])
def test_a_kernel_with_io_uring_passes(kernel: str) -> None:
    rules.check(DEPLOYMENT, here(kernel=kernel, io_uring_disabled="0"))


@pytest.mark.parametrize("services", [[0, 1], [0, 1, 2, 3], []])
def test_a_compose_file_with_other_replicas_is_refused(services: list[int]) -> None:
    with pytest.raises(Refusal, match="expected the services tigerbeetle-0, tigerbeetle-1"):
        engine.check_model(CLUSTER, [f"tigerbeetle-{i}" for i in services])


@pytest.mark.parametrize("found", ["19.03.15", "20.9", "no Compose plugin", ""])
def test_an_old_version_is_refused(found: str) -> None:
    with pytest.raises(Refusal, match=r"docker: expected version 20\.10 or newer, found"):
        _require("docker", found, (20, 10), "upgrade")


@pytest.mark.parametrize("found", ["20.10.24+dfsg1", "28.2.2", "v20.10", "21.0"])
def test_a_new_enough_version_passes(found: str) -> None:
    _require("docker", found, (20, 10), "upgrade")


#: Words that were really seen, and the trouble that they show.
SAID = [
    ("error setting rlimit type 8: operation not permitted", "rlimit"),
    ("error(io): io_uring is not available\nerror: PermissionDenied", "io-uring"),
    ("error: SystemResources", "memlock-zero"),
    ("seccomp is not enabled in your kernel, cannot run a custom seccomp profile", "no-seccomp"),
    ("listen tcp4 192.0.2.1:3000: bind: cannot assign requested address", "bind"),
    ("[FATAL tini (7)] exec /tigerbeetle failed: Operation not permitted", "no-ipc-lock"),
    ("thread 7 panic: superblock not found", "superblock"),
    ("panic: data file inode size was truncated or corrupted", "superblock"),
    ("panic: Path does not exist.", "unformatted"),
    ("error: AddressNotAvailable", "exchanged-file"),
    ("error: AccessDenied", "owner"),
    ("thread 7 panic: another process holds the data file lock", "locked-file"),
    ("error: --addresses: invalid IPv4 or IPv6 address: 'foo:3000'", "bad-address"),
    ("error: --addresses: invalid IPv4 or IPv6 address: 'db:3000,db:3001,db:3002'", "bad-address"),
    ("listen tcp4 0.0.0.0:3000: bind: address already in use", "port-taken"),
    ("Error response from daemon: Address already in use", "ip-taken"),
    ("Pool overlaps with other one on this address space", "subnet-taken"),
    ("No such image: tigerbeetle-custom:0.17.9", "no-image"),
    ('exec: "nc": executable file not found in $PATH', "no-netcat"),
    ("write /x: no space left on device", "disk-full"),
    ("warning(mlock): Unable to lock pages in memory", "mlock"),
]


@pytest.mark.parametrize(
    ("said", "key"), SAID, ids=[f"{key}-{i}" for i, (_, key) in enumerate(SAID)]
)
def test_known_words_name_their_trouble(said: str, key: str) -> None:
    found = of_text(f"2026-01-01 00:00:00.000Z {said}\nmore")
    assert found is not None
    assert found.key == key
    assert ". Fix: " in str(found)


BOOT = """\
info(main): release=0.17.9
warning(main): Grid cache size of 512MiB is small. See --cache-grid
warning(message_bus): 0: on_connect: error to=1 error.ConnectionRefused
warning(main): A cluster id of 0 is reserved for testing and benchmarking, do not use in production.
info(main): 0: cluster=0: listening on net.SocketAddress{ .ip = 172.20.0.10, .port = 3000 }
"""


def test_a_normal_start_shows_no_trouble() -> None:
    assert of_text(BOOT) is None


def test_every_known_trouble_has_a_name_of_its_own() -> None:
    keys = [known.key for known in KNOWN]
    assert len(keys) == len(set(keys))


def container(
    status: str = "running",
    health: str = "healthy",
    at: str = str(REPLICA.ip),
    check: str = "Connection to 172.20.0.10 3000 port [tcp/*] succeeded!",
    **state: object,
) -> object:
    return parse(
        {
            "Name": "/tigerbeetle-0",
            "Id": "1",
            "Image": "sha256:1",
            "RestartCount": 0,
            "Config": {"Image": "tigerbeetle-custom:0.17.9", "Labels": {}},
            "NetworkSettings": {"Networks": {"net": {"IPAddress": at}}},
            "State": {
                "Status": status,
                "Pid": 7 if status == "running" else 0,
                "ExitCode": 0,
                "Health": {"Status": health, "Log": [{"Output": check}]},
                "StartedAt": "now",
                **state,
            },
        }
    )


STATES = [
    (container(), BOOT, []),
    (container(health="starting"), BOOT, []),
    (container(health="starting"), "", ["starting"]),
    (container(health="unhealthy"), BOOT, ["unhealthy"]),
    (container(status="paused"), BOOT, ["paused"]),
    (container(status="exited", ExitCode=137), BOOT, ["stopped"]),
    (container(status="exited", ExitCode=137, OOMKilled=True), BOOT, ["out-of-memory"]),
    (container(status="restarting", ExitCode=1), BOOT, ["restarting"]),
    (container(status="restarting", ExitCode=137), BOOT, ["out-of-memory"]),  # the flag was missed
    (container(status="restarting"), "panic: Path does not exist.", ["unformatted"]),
    (container(status="created", Error="bind: address already in use"), "", ["port-taken"]),
    (container(at="172.20.0.77"), BOOT, ["wrong-ip"]),
    (container(check='exec: "nc": executable file not found in $PATH'), BOOT, ["no-netcat"]),
    (container(), f"{BOOT}warning(mlock): Unable to lock pages in memory", ["mlock"]),
    (None, "", ["no-container"]),
]


@pytest.mark.parametrize(("found", "said", "keys"), STATES)
def test_a_container_s_state_names_its_trouble(found: object, said: str, keys: list[str]) -> None:
    assert [d.key for d in of_container(found, REPLICA, said)] == keys  # type: ignore[arg-type]


def test_a_holder_that_ends_while_it_is_looked_up_is_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", gone)
    with socket.create_server(("127.0.0.1", 0)) as held:
        assert observe.listener("127.0.0.1", held.getsockname()[1]) == "another process"


@pytest.mark.parametrize("status", ["restarting", "exited"])
def test_an_end_that_nobody_knows_names_the_server_s_last_line(status: str) -> None:
    said = f"{BOOT}\nerror(main): unheard of: 42\n\n"
    ended: Any = container(status=status, ExitCode=1)
    (found,) = of_container(ended, REPLICA, said)
    assert found.evidence == f"{status}, exit code 1; its last line: error(main): unheard of: 42"
    (found,) = of_container(ended, REPLICA, "")
    assert found.evidence == f"{status}, exit code 1"
