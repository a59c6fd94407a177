"""Each server holds its own replica's file, in the right hands, and nothing that it should not."""

from __future__ import annotations

from pathlib import PurePath

from cluster.config import Replica
from tests.infra.world import ServerWorld

UID = 10001


def test_the_server_has_its_own_replica_s_address_and_no_other_s(
    world: ServerWorld, replica: Replica
) -> None:
    addresses = world.at(replica).check_output("hostname --all-ip-addresses").split()
    others = {str(r.ip) for r in world.deployment.cluster.replicas if r != replica}
    assert str(replica.ip) in addresses
    assert others.isdisjoint(addresses)


def test_the_user_can_run_the_replica_and_not_log_in(world: ServerWorld, replica: Replica) -> None:
    user = world.at(replica).user("tigerbeetle")
    assert (user.uid, user.gid) == (UID, UID)
    assert user.groups == ["tigerbeetle"]
    assert user.shell == "/usr/sbin/nologin"


def test_the_data_file_is_there_and_its_owner_s_alone(world: ServerWorld, replica: Replica) -> None:
    found = world.data_file(replica)
    assert found.is_file
    assert found.size > 0
    assert (found.uid, found.gid, found.mode) == (UID, UID, 0o600)


def test_the_replica_s_directory_is_closed_to_others(world: ServerWorld, replica: Replica) -> None:
    found = world.at(replica).file(world.directory(replica))
    assert (found.uid, found.gid, found.mode) == (UID, UID, 0o700)


def test_the_directory_holds_one_data_file_and_no_unfinished_format(
    world: ServerWorld, replica: Replica
) -> None:
    found = world.at(replica).check_output("ls %s", world.directory(replica)).split()
    own = PurePath(world.data_file(replica).path).name
    assert [name for name in found if "tigerbeetle" in name] == [own]
    assert "bootstrapping" not in found


def test_io_uring_is_enabled_and_stays_so(world: ServerWorld, replica: Replica) -> None:
    server = world.at(replica)
    assert server.check_output("cat /proc/sys/kernel/io_uring_disabled || echo 0").strip() == "0"
    kept = server.file("/etc/sysctl.d/90-tigerbeetle.conf").content_string.splitlines()
    assert "kernel.io_uring_disabled = 0" in kept


def test_no_file_of_the_server_holds_the_token(world: ServerWorld, replica: Replica) -> None:
    found = world.at(replica).run(
        "grep --recursive --files-with-matches --fixed-strings -e %s "
        "/etc/tigerbeetle /etc/systemd /var/lib/tigerbeetle --include=*.yaml --include=*.service "
        "--include=*.json --include=*.conf --include=*.env",
        world.deployment.cluster.token,
    )
    assert found.stdout == ""
