"""Each replica runs confined, under a user of its own, with every address and no secret."""

from __future__ import annotations

import os
import socket

import pytest

from cluster.config import Replica
from tests.infra.world import ServerWorld

UID = "10001"
CONNECT_TIMEOUT_S = 3


def test_the_replica_runs_as_its_own_user_and_as_nobody_else(
    world: ServerWorld, replica: Replica
) -> None:
    assert set(world.status(replica, "Uid").split()) == {UID}
    assert set(world.status(replica, "Gid").split()) == {UID}


def test_the_replica_s_system_calls_are_filtered(world: ServerWorld, replica: Replica) -> None:
    assert world.status(replica, "Seccomp") == "2"  # include/uapi/linux/seccomp.h


def test_the_token_is_in_no_process(world: ServerWorld, replica: Replica) -> None:
    token = world.deployment.cluster.token
    assert token not in world.proc(replica, "cmdline")
    assert token not in world.proc(replica, "environ")


def test_the_replica_listens_on_its_address_and_on_no_other(
    world: ServerWorld, replica: Replica
) -> None:
    assert world.listening(replica) == {(str(replica.ip), replica.port)}


def test_every_peer_reaches_the_replica(world: ServerWorld, replica: Replica) -> None:
    for peer in world.deployment.cluster.replicas:
        if peer != replica:
            reached = world.at(peer).run(
                "timeout 3 bash -c 'exec 3<>/dev/tcp/'%s/%s", str(replica.ip), str(replica.port)
            )
            assert reached.rc == 0


def test_the_firewall_is_loaded_and_comes_back_at_boot(
    world: ServerWorld, replica: Replica
) -> None:
    server = world.at(replica)
    rules = server.check_output("nft list table inet tigerbeetle")
    assert f"tcp dport != {replica.port} accept" in rules
    assert "drop" in rules
    assert server.service("tigerbeetle-firewall").is_enabled


def test_this_machine_gets_in_exactly_if_it_is_a_listed_client(
    world: ServerWorld, replica: Replica
) -> None:
    assert world.deployment.settings
    if os.environ.get("SSH_CONNECTION"):
        pytest.skip("logged in over SSH: which of its addresses a server sees cannot be told")
    own = _address_towards(replica)
    is_listed = any(_is_inside(own, str(net)) for net in world.deployment.settings.clients)
    try:
        socket.create_connection((str(replica.ip), replica.port), CONNECT_TIMEOUT_S).close()
        gets_in = True
    except OSError:
        gets_in = False
    assert gets_in == is_listed


def _address_towards(replica: Replica) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(replica.ip), replica.port))
        address: str = probe.getsockname()[0]
        return address


def _is_inside(address: str, network: str) -> bool:
    base, _, bits = network.partition("/")
    shift = 32 - int(bits)
    numbers = [int.from_bytes(socket.inet_aton(ip), "big") >> shift for ip in (address, base)]
    return numbers[0] == numbers[1]
