"""Where replicas are: as they list one another, and as clients find them."""

from __future__ import annotations

import pytest

from cluster import config
from cluster.config import inventory

PEERS = "172.20.0.10:3000,172.20.0.11:3001,172.20.0.12:3002"
HERE = "127.0.0.1:3000,127.0.0.1:3001,127.0.0.1:3002"


@pytest.fixture(autouse=True)
def as_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in config.read(environ={}).items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize(
    ("name", "peers"), [("local", PEERS), ("process", HERE), ("emulator", HERE)]
)
def test_peers_and_clients_may_know_a_replica_by_two_addresses(name: str, peers: str) -> None:
    found = inventory.read(f"inventories/{name}.py")
    assert found.peers == peers
    assert found.client_addresses == HERE


def test_clients_take_the_address_to_which_ports_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{config.PREFIX}BIND", "10.9.9.9")
    found = inventory.read("inventories/local.py")
    assert found.peers == PEERS
    assert [str(r.ip) for r in found.clients] == ["10.9.9.9"] * 3


def test_a_tunnel_s_end_is_for_clients_here_alone() -> None:
    found = inventory.read("inventories/local.py")
    ends = tuple(r.model_copy(update={"port": 40_000 + r.index}) for r in found.published)
    tunnelled = found.model_copy(update={"tunnelled": ends})
    assert tunnelled.client_addresses == "127.0.0.1:40000,127.0.0.1:40001,127.0.0.1:40002"
    assert tunnelled.listed == found.listed
    assert tunnelled.peers == PEERS
