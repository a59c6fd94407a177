"""When recovering a replica's file is safe, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster import config
from cluster.command import chosen
from cluster.config.deployment import Deployment
from cluster.health.health import ReplicaHealth
from cluster.operate.recover import refuse_engine, refuse_unsafe
from cluster.refusal import Refusal
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))
NAMED = "INVENTORY=eu.py"
COMMITS = Canary(True, "committed and read back")


def replica(index: int, process: str = "RUNNING", status: str = "normal") -> ReplicaHealth:
    running = process == "RUNNING"
    pong = Pong(replica=index, release="0.17.9", view=0, ms=1.0)
    return ReplicaHealth(
        replica=CLUSTER.replicas[index],
        process=process,
        pid=7 * running,
        port_open=running,
        log=ReplicaLog(status=status),
        pong=pong if running else None,
    )


@pytest.mark.parametrize("process", ["DOWN", "FATAL", "BACKOFF", "EXITED", "STOPPED"])
def test_a_replica_that_is_down_is_recovered_when_all_others_are_well(process: str) -> None:
    refuse_unsafe([replica(0), replica(1, process), replica(2)], 1, COMMITS, NAMED)


@pytest.mark.parametrize(
    ("replicas", "canary", "said"),
    [
        ([replica(0), replica(1), replica(2)], COMMITS, "expected replica 1 not to run"),
        ([replica(0), replica(1, "DOWN"), replica(2, "DOWN")], COMMITS, "found replica 2 down"),
        (
            [replica(0, status="view_change"), replica(1, "DOWN"), replica(2)],
            COMMITS,
            "expected all replicas but 1 to be normal",
        ),
        (
            [replica(0), replica(1, "DOWN"), replica(2)],
            Canary(False, "no commit within 15 s"),
            "without replica 1, found: no commit within 15 s",
        ),
        ([replica(0), replica(1, "DOWN"), replica(2)], None, "no port answers"),
    ],
)
def test_a_recovery_that_is_unsafe_is_refused(
    replicas: list[ReplicaHealth], canary: Canary | None, said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        refuse_unsafe(replicas, 1, canary, NAMED)


def test_of_six_replicas_two_lost_ones_are_recovered_one_after_the_other() -> None:
    """The others are a majority, and the cluster commits; three lost ones are too many."""
    six = [
        replace(replica(0), replica=CLUSTER.replicas[0].model_copy(update={"index": i}))
        for i in range(6)
    ]
    away = [replace(replica(0, "FATAL"), replica=one.replica) for one in six]
    refuse_unsafe([*six[:4], *away[4:]], 4, COMMITS, NAMED)
    refuse_unsafe([*six[:4], *away[4:]], 5, COMMITS, NAMED)
    with pytest.raises(Refusal, match="expected all replicas but 4 and one more to be normal"):
        refuse_unsafe([*six[:3], *away[3:]], 4, COMMITS, NAMED)


def deployment(engine: str = "tigerbeetle", count: int = 3) -> Deployment:
    cluster = CLUSTER.model_copy(update={"replicas": CLUSTER.replicas[:count]})
    return Deployment.model_validate(
        {
            "name": "process",
            "engine": engine,
            "runtime": "process",
            "cluster": cluster,
            "state_dir": Path("nowhere"),
        }
    )


def test_where_there_is_nobody_to_recover_from_it_is_refused() -> None:
    refuse_engine(deployment())
    with pytest.raises(Refusal, match="found the EMULATOR"):
        refuse_engine(deployment("emulator"))
    with pytest.raises(Refusal, match="found a cluster of one"):
        refuse_engine(deployment(count=1))


@pytest.mark.parametrize("text", ["", "3", "-1", "one", "1 2"])
def test_a_replica_that_does_not_exist_is_refused(text: str) -> None:
    assert chosen("2", range(3)) == [2]
    with pytest.raises(Refusal, match="REPLICA: expected one of 0, 1, 2"):
        chosen(text, range(3))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_server_that_limits_ssh_is_waited_for_and_no_replica_made_anew(lost: int) -> None:
    replicas = [replica(0, "DOWN"), replica(1, "REFUSED BY SSH"), replica(2)]
    with pytest.raises(Refusal, match=r"refused by SSH\. Fix: wait a minute") as refused:
        refuse_unsafe(replicas, lost, COMMITS, NAMED)
    assert "make " not in str(refused.value)


def test_a_replica_whose_server_does_not_answer_is_not_made_anew() -> None:
    replicas = [replica(0), replica(1, "UNREACHABLE"), replica(2)]
    with pytest.raises(Refusal, match="expected an answer of replica 1's server, found replica 1"):
        refuse_unsafe(replicas, 1, COMMITS, NAMED)
