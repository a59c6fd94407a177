"""Each container is what the configuration says, and has no way out of its confinement."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cluster import REPOSITORY, config
from cluster.config import Replica
from cluster.runtimes import container, docker_engine
from tests.infra.world import ContainerWorld

IPC_LOCK = 1 << 14  # include/uapi/linux/capability.h
SECCOMP_FILTER = "2"  # include/uapi/linux/seccomp.h: SECCOMP_MODE_FILTER


def test_the_container_runs_and_never_restarted(world: ContainerWorld, replica: Replica) -> None:
    found = world.inspect(replica)
    assert found["State"]["Status"] == "running"
    assert found["RestartCount"] == 0


def test_the_health_check_looks_at_the_replica_s_own_address(
    world: ContainerWorld, replica: Replica
) -> None:
    ip = config.load().replicas[replica.index].ip
    check = world.inspect(replica)["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD", "nc", "-zv", str(ip), str(replica.port)]
    assert check["StartPeriod"] == 60 * 10**9  # longer than a cold start was ever seen to take


def test_the_container_is_not_unhealthy(world: ContainerWorld, replica: Replica) -> None:
    assert world.inspect(replica)["State"]["Health"]["Status"] in ("starting", "healthy")


def test_the_health_check_succeeds_on_its_address_and_on_no_other_port(
    world: ContainerWorld, replica: Replica
) -> None:
    ip = config.load().replicas[replica.index].ip
    own = world.inside(replica, f"nc -zv {ip} {replica.port} 2>&1")
    assert own.rc == 0
    assert "succeeded!" in own.stdout
    assert world.inside(replica, f"nc -zv {ip} {replica.port + 7}").rc != 0


def test_the_container_runs_the_image_of_the_configured_release(
    world: ContainerWorld, replica: Replica
) -> None:
    cluster = world.deployment.cluster
    found = world.inspect(replica)["Config"]
    assert found["Image"] == f"{cluster.custom_image}:{cluster.release}"
    assert found["Labels"]["org.opencontainers.image.version"] == f"{cluster.release}-custom"


def test_the_container_was_made_with_the_settings_of_today(
    world: ContainerWorld, replica: Replica
) -> None:
    service = docker_engine.service(replica.index)
    asked = docker_engine.compose("config", "--hash", service)
    told = container.lowered(world.deployment.cluster)
    hashed = world.host.check_output(docker_engine.shell(asked, **told)).split()
    made = world.inspect(replica)["Config"]["Labels"]["com.docker.compose.config-hash"]
    assert hashed == [service, made]


def test_tini_is_the_first_process_and_the_server_its_only_child(
    world: ContainerWorld, replica: Replica
) -> None:
    assert world.first(replica) == "tini"
    assert world.pid(replica) > 1


#: What the engine was told, by the path in `docker inspect`.
HOST_CONFIG = [
    ("Privileged", False),
    ("ReadonlyRootfs", True),
    ("CapDrop", ["ALL"]),
    ("PidsLimit", 64),
    ("PidMode", ""),
    ("IpcMode", "private"),
    ("UsernsMode", ""),
    ("Devices", None),
    ("VolumesFrom", None),
    ("RestartPolicy", {"Name": "unless-stopped", "MaximumRetryCount": 0}),
    ("LogConfig", {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}),
]


@pytest.mark.parametrize(("key", "expected"), HOST_CONFIG, ids=[key for key, _ in HOST_CONFIG])
def test_the_container_is_confined_as_configured(
    world: ContainerWorld, replica: Replica, key: str, expected: Any
) -> None:
    if key == "PidsLimit":
        skip_where_the_engine_lacks(key, world)
    found = world.inspect(replica)["HostConfig"][key]
    assert found == expected or (expected is None and found == [])


def test_ipc_lock_is_the_only_capability_that_was_added(
    world: ContainerWorld, replica: Replica
) -> None:
    added = world.inspect(replica)["HostConfig"]["CapAdd"]
    assert [name.removeprefix("CAP_") for name in added] == ["IPC_LOCK"]


def skip_where_the_engine_lacks(limit: str, world: ContainerWorld) -> None:
    """The engine leaves it out with a warning. Locked memory is not swapped, with or without it."""
    if not json.loads(world.host.check_output("docker info --format '{{json .}}'"))[limit]:
        pytest.skip(f"this engine's kernel has no {limit}: docker info says so")


def test_the_memory_limit_is_the_configured_one(world: ContainerWorld, replica: Replica) -> None:
    skip_where_the_engine_lacks("MemoryLimit", world)
    limits = world.inspect(replica)["HostConfig"]
    assert limits["Memory"] == config.size_bytes(world.deployment.cluster.memory_limit)


def test_swap_adds_nothing_to_the_memory_limit(world: ContainerWorld, replica: Replica) -> None:
    skip_where_the_engine_lacks("SwapLimit", world)
    limits = world.inspect(replica)["HostConfig"]
    assert limits["MemorySwap"] == limits["Memory"]


def test_only_the_replica_s_volume_is_mounted(world: ContainerWorld, replica: Replica) -> None:
    mounts = world.inspect(replica)["Mounts"]
    assert [(mount["Type"], mount["Destination"]) for mount in mounts] == [("volume", "/data")]
    assert mounts[0]["Name"].endswith(f"_tigerbeetle-data-{replica.index}")


def test_the_token_is_nowhere_in_the_container(world: ContainerWorld, replica: Replica) -> None:
    token = world.deployment.cluster.token
    assert token not in world.host.check_output("docker inspect %s", replica.name)
    assert "PATH=" in (environ := world.proc(replica, "environ"))
    assert token not in environ
    assert token not in world.proc(replica, "cmdline")


@pytest.mark.parametrize("field", ["Uid", "Gid"])
def test_the_server_is_not_root_and_cannot_be(
    world: ContainerWorld, replica: Replica, field: str
) -> None:
    assert set(world.status(replica, field).split()) == {"10001"}


@pytest.mark.parametrize("field", ["CapInh", "CapAmb"])
def test_no_capability_is_inherited(world: ContainerWorld, replica: Replica, field: str) -> None:
    assert int(world.status(replica, field), 16) == 0


@pytest.mark.parametrize("field", ["CapBnd", "CapPrm", "CapEff"])
def test_no_capability_but_ipc_lock_can_be_had(
    world: ContainerWorld, replica: Replica, field: str
) -> None:
    assert int(world.status(replica, field), 16) | IPC_LOCK == IPC_LOCK


def test_a_seccomp_filter_is_active_unless_it_was_given_up(
    world: ContainerWorld, replica: Replica
) -> None:
    filtered = world.deployment.cluster.seccomp != "unconfined"
    assert (world.status(replica, "Seccomp") == SECCOMP_FILTER) == filtered


def test_the_seccomp_profile_is_what_its_file_says_today(
    world: ContainerWorld, replica: Replica
) -> None:
    seccomp = world.deployment.cluster.seccomp
    wanted = [] if seccomp == "unconfined" else [json.loads((REPOSITORY / seccomp).read_text())]
    options = world.inspect(replica)["HostConfig"]["SecurityOpt"] or []
    made = [o.removeprefix("seccomp=") for o in options if o.startswith("seccomp={")]
    assert [json.loads(profile) for profile in made] == wanted


#: Forbidden acts, each tried for real: (what, shell line, what it says).
FORBIDDEN = [
    ("write-root", "touch /written", "Read-only file system"),
    ("write-tmp", "touch /tmp/written", "Read-only file system"),
    ("new-namespace", "unshare --user true", "Operation not permitted"),
    ("mount", "mount -t tmpfs none /mnt", "(permission denied|[Oo]peration not permitted|must be)"),
    ("become-root", "setpriv --reuid 0 true", "Operation not permitted"),
    ("read-kernel-log", "dmesg", "Operation not permitted"),
]


@pytest.mark.parametrize(
    ("script", "says"), [row[1:] for row in FORBIDDEN], ids=[row[0] for row in FORBIDDEN]
)
def test_what_is_forbidden_fails(
    world: ContainerWorld, replica: Replica, script: str, says: str
) -> None:
    done = world.inside(replica, f"{script} 2>&1")
    assert done.rc != 0
    assert re.search(says, done.stdout), done.stdout


def test_no_program_in_the_image_gains_privileges(world: ContainerWorld, replica: Replica) -> None:
    found = world.inside(replica, "find / -xdev -type f -perm /6000 2>/dev/null")
    assert found.stdout.strip() == ""
