"""Health level 3: the cluster commits, through the official client, and only as itself."""

from __future__ import annotations

from cluster.runtimes import tunnel
from cluster.tigerbeetle import canary
from tests.infra.world import World

COMMIT_BOUND_S = 60
REFUSAL_BOUND_S = 3


def test_a_transfer_is_committed_and_read_back(world: World) -> None:
    way = tunnel.reached(world.deployment)
    answer = canary.probe(way.client_addresses, way.cluster.id, COMMIT_BOUND_S)
    assert answer.commits, answer.detail


def test_a_client_of_another_cluster_gets_no_answer(world: World) -> None:
    way = tunnel.reached(world.deployment)
    answer = canary.probe(way.client_addresses, way.cluster.id + 1, REFUSAL_BOUND_S)
    assert not answer.commits
