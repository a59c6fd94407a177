"""The seccomp profile: what the server needs passes, what it does not need is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY, config
from cluster.runtimes import docker_engine
from tests.docker.sandbox import docker, has_base, memlock, needs_emulator

pytestmark = pytest.mark.docker

PROFILE = REPOSITORY / config.load(environ={}).seccomp
DANGEROUS = [
    "add_key",
    "bpf",
    "chroot",
    "clock_settime",
    "delete_module",
    "init_module",
    "kexec_load",
    "keyctl",
    "mount",
    "open_by_handle_at",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_vm_readv",
    "ptrace",
    "reboot",
    "setns",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "io_uring_register",
]


def allowed() -> set[str]:
    profile = json.loads(PROFILE.read_text())
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    return {name for rule in rules for name in rule["names"]}


def run_with(profile: str, image: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A container confined as the replicas are, but for its seccomp profile and its volume."""
    options = [f"--security-opt=seccomp={profile}"] if profile != "default" else []
    return docker(
        "run",
        "--rm",
        "--network=none",
        "--cap-drop=ALL",
        "--cap-add=IPC_LOCK",
        "--user=0",
        f"--ulimit=memlock={memlock()}",
        "--tmpfs=/data",
        *options,
        *arguments[:-1],
        image,
        *arguments[-1].split(),
    )


def genuine() -> str:
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the genuine server: .ci/provision-docker base")
    cluster = config.load()
    return f"{cluster.image}:{cluster.release}"


FORMAT = "format --cluster=0 --replica=0 --replica-count=1 --development /data/x"


def without_io_uring(directory: Path) -> str:
    profile: dict[str, Any] = json.loads(PROFILE.read_text())
    profile["syscalls"] = [s for s in profile["syscalls"] if "io_uring_setup" not in s["names"]]
    narrow = directory / "narrow.json"
    narrow.write_text(json.dumps(profile))
    return str(narrow)


def test_everything_is_refused_that_is_not_listed() -> None:
    assert json.loads(PROFILE.read_text())["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_reaches_beyond_the_container_is_not_listed(name: str) -> None:
    assert name not in allowed()


def test_the_io_uring_of_the_server_is_listed() -> None:
    assert {"io_uring_setup", "io_uring_enter"} <= allowed()


def test_no_name_is_listed_twice() -> None:
    rules = json.loads(PROFILE.read_text())["syscalls"]
    names = [name for rule in rules for name in rule["names"]]
    assert len(names) == len(set(names))


def test_the_server_works_under_our_profile() -> None:
    done = run_with(str(PROFILE), genuine(), FORMAT)
    assert done.returncode == 0, done.stderr
    assert "formatted: cluster=0" in done.stderr


def test_the_server_refuses_to_start_where_io_uring_is_blocked(tmp_path: Path) -> None:
    done = run_with(without_io_uring(tmp_path), genuine(), FORMAT)
    assert done.returncode != 0
    assert "error: PermissionDenied" in done.stderr


def test_the_engine_s_own_profile_blocks_io_uring_from_25_on() -> None:
    major = int(str(docker_engine.info()["ServerVersion"]).partition(".")[0])
    done = run_with("default", genuine(), FORMAT)
    assert (done.returncode == 0) == (major < 25), done.stderr


@pytest.mark.parametrize("profile", [str(PROFILE), "unconfined"], ids=["ours", "unconfined"])
def test_a_system_call_that_is_not_listed_is_refused_by_ours_alone(profile: str) -> None:
    """``setarch --addr-no-randomize`` calls personality(2)."""
    image = f"tigerbeetle-emulator:{config.load().release}"
    needs_emulator()
    done = run_with(profile, image, "--entrypoint=setarch", "--addr-no-randomize true")
    assert (done.returncode == 0) == (profile == "unconfined"), done.stderr
