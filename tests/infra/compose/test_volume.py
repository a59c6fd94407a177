"""Each replica has a volume of its own with one data file, which nobody else can read."""

from __future__ import annotations

import json

from cluster.config import Replica
from cluster.runtimes import docker_engine
from tests.infra.world import ContainerWorld


def data_file(world: ContainerWorld, replica: Replica) -> str:
    return f"/data/{world.deployment.cluster.id}_{replica.index}.tigerbeetle"


def test_the_volume_is_the_project_s(world: ContainerWorld, replica: Replica) -> None:
    name = f"{docker_engine.project()}_tigerbeetle-data-{replica.index}"
    (found,) = json.loads(world.host.check_output("docker volume inspect %s", name))
    assert found["Labels"]["com.docker.compose.project"] == docker_engine.project()


def test_no_two_replicas_share_a_volume(world: ContainerWorld) -> None:
    replicas = world.deployment.cluster.replicas
    assert len({world.inspect(r)["Mounts"][0]["Name"] for r in replicas}) == len(replicas)


def test_the_data_file_is_its_owner_s_alone(world: ContainerWorld, replica: Replica) -> None:
    found = world.inside(replica, f"stat -c '%a %u %g' {data_file(world, replica)}")
    assert found.stdout.strip() == "600 10001 10001"


def test_the_data_directory_is_closed_to_others(world: ContainerWorld, replica: Replica) -> None:
    assert world.inside(replica, "stat -c '%a %u' /data").stdout.strip() == "700 10001"


def test_the_volume_holds_one_data_file_and_no_unfinished_format(
    world: ContainerWorld, replica: Replica
) -> None:
    found = world.inside(replica, "ls /data").stdout.split()
    assert [f"/data/{name}" for name in found] == [data_file(world, replica)]
