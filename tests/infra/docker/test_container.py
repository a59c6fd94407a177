"""Each container is what the inventory says, and has no way out of its confinement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.config import Replica, size_bytes
from tests.infra.world import ServerContainerWorld

#: What the engine was told, by the path in `docker inspect`.
HOST_CONFIG: list[tuple[str, Any]] = [
    ("NetworkMode", "host"),
    ("Privileged", False),
    ("ReadonlyRootfs", True),
    ("CapDrop", ["ALL"]),
    ("PidsLimit", 64),
    ("PidMode", ""),
]


def test_the_container_runs_and_never_restarted(
    world: ServerContainerWorld, replica: Replica
) -> None:
    found = world.inspect(replica)
    assert found["State"]["Status"] == "running"
    assert found["RestartCount"] == 0
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_container_was_made_from_the_file_as_it_is_written(
    world: ServerContainerWorld, replica: Replica
) -> None:
    mark = world.inspect(replica)["Config"]["Labels"]["wallet-service.settings"]
    file = world.at(replica).file(f"/etc/tigerbeetle/compose-{replica.index}.yaml")
    assert f'wallet-service.settings: "{mark}"' in file.content_string


@pytest.mark.parametrize(("key", "expected"), HOST_CONFIG, ids=[key for key, _ in HOST_CONFIG])
def test_the_container_is_confined(
    world: ServerContainerWorld, replica: Replica, key: str, expected: Any
) -> None:
    assert world.inspect(replica)["HostConfig"][key] == expected


def test_the_container_may_lock_memory_and_nothing_else(
    world: ServerContainerWorld, replica: Replica
) -> None:
    added = world.inspect(replica)["HostConfig"]["CapAdd"]
    assert [name.removeprefix("CAP_") for name in added] == ["IPC_LOCK"]


def test_the_container_has_our_seccomp_profile(
    world: ServerContainerWorld, replica: Replica
) -> None:
    (option,) = world.inspect(replica)["HostConfig"]["SecurityOpt"]
    profile = json.loads(option.removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"


def test_the_container_sees_its_replica_s_directory_and_no_other(
    world: ServerContainerWorld, replica: Replica
) -> None:
    mounts = world.inspect(replica)["Mounts"]
    assert [(m["Source"], m["Destination"]) for m in mounts] == [
        (world.directory(replica), "/data")
    ]


def test_the_container_has_the_configured_limit_and_release(
    world: ServerContainerWorld, replica: Replica
) -> None:
    cluster, found = world.deployment.cluster, world.inspect(replica)
    assert found["HostConfig"]["Memory"] == size_bytes(cluster.memory_limit)
    assert found["Config"]["Image"] == f"{cluster.custom_image}:{cluster.release}"


def test_the_memlock_limit_is_the_configured_one_or_all_that_the_engine_may_grant(
    world: ServerContainerWorld, replica: Replica
) -> None:
    """Where it is another one, the engine is asked for the configured one, and must refuse it."""
    wanted, found = world.deployment.cluster.memlock, world.inspect(replica)
    (limit,) = found["HostConfig"]["Ulimits"]
    assert (limit["Name"], limit["Soft"]) == ("memlock", limit["Hard"])
    if limit["Hard"] == wanted:
        return
    run, server = f"docker run --rm --network=none {{}} {found['Image']}", world.at(replica)
    tried = server.run(run.format(f"--ulimit=memlock={wanted} --entrypoint=true"))
    assert tried.rc != 0 and "rlimit" in tried.stderr
    own = server.check_output(run.format("--entrypoint=sh") + " -c 'ulimit -H -l'")
    assert limit["Hard"] == int(own) * 1024


def test_the_server_is_the_only_child_of_tini(
    world: ServerContainerWorld, replica: Replica
) -> None:
    assert world.first(replica) == "tini"
    assert world.pid(replica) > 1
