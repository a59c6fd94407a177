"""Data files are there, whole, and readable by nobody else."""

from __future__ import annotations

from pathlib import PurePath

from cluster.config import Replica
from tests.infra.world import ProcessWorld


def test_the_data_file_is_there_and_holds_something(world: ProcessWorld, replica: Replica) -> None:
    data_file = world.data_file(replica)
    assert data_file.is_file
    assert data_file.size > 0


def test_the_data_file_is_its_owner_s_alone(world: ProcessWorld, replica: Replica) -> None:
    assert world.data_file(replica).mode == 0o600


def test_the_replica_s_directory_is_closed_to_others(world: ProcessWorld, replica: Replica) -> None:
    assert world.host.file(str(world.directory(replica))).mode == 0o700


def test_the_replica_s_log_is_closed_to_others(world: ProcessWorld, replica: Replica) -> None:
    assert world.host.file(str(world.directory(replica) / "replica.log")).mode == 0o600


def test_no_unfinished_format_was_left(world: ProcessWorld, replica: Replica) -> None:
    assert not world.host.file(f"{world.data_file(replica).path}.partial").exists
    assert not world.host.file(str(world.deployment.state_dir / "bootstrapping")).exists


def test_the_directory_holds_no_second_data_file(world: ProcessWorld, replica: Replica) -> None:
    found = world.host.check_output("ls %s", str(world.directory(replica))).split()
    assert [name for name in found if name.endswith(".tigerbeetle")] == [
        PurePath(world.data_file(replica).path).name
    ]
