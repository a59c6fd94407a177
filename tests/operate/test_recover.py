"""A lost data file is recovered in the living cluster, and only when that is safe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cluster.health import health
from cluster.runtimes import of
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox, sandbox
from tests.operate.ledger import Ledger, acknowledged

pytestmark = [pytest.mark.genuine]


def recover(made: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return made.run("make", "recover", *arguments)


def refused(made: Sandbox, *arguments: str) -> str:
    """The error of a recovery that must not begin."""
    done = recover(made, *arguments)
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Starting operation: Recover the data file" not in done.stderr
    return done.stderr


def stop(made: Sandbox, index: int) -> None:
    subprocess.run(["sh", "-c", of(made.deployment).stop(index)], check=True)


def start(made: Sandbox, index: int) -> None:
    subprocess.run(["sh", "-c", of(made.deployment).start(index)], check=True)


def _normal(made: Sandbox, index: int) -> tuple[bool, str]:
    found = health.of_replicas(made.deployment)[index]
    return found.is_normal, str(found)


def test_a_lost_file_is_recovered_under_load_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    log = tmp_path / "acknowledged"
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        ledger = Ledger(made.deployment.cluster.addresses)
        running = made.call("recover", "--replica=1")
        assert running.returncode == 2
        assert "found it running as pid" in running.stderr
        with ledger.streaming(1, log):
            stop(made, 1)
            readable = refused(made, "REPLICA=1")
            assert "expected no data file, or a damaged one" in readable
            made.data_file(1).unlink()
            stop(made, 0)
            away = made.call("recover", "--replica=1")
            assert away.returncode == 2
            assert "expected all replicas but 1 to be normal, found replica 0" in away.stderr
            assert not made.data_file(1).exists()
            start(made, 0)
            wait_until(
                lambda: _normal(made, 0), what="replica 0 to be back", timeout_s=1200, interval_s=1
            )
            before = len(acknowledged(log))
            done = recover(made, "REPLICA=1")
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            assert "replica 1 has caught up" in done.stderr
            stop(made, 2)  # from here on nothing commits without the recovered replica
            ledger.read(1)
        streamed = acknowledged(log)
        assert len(streamed) > before, "the load went on during the recovery"
        found = [t[0] for t in ledger.read(streamed[-1][0])["transfers"]]
        assert found == [number for number, _ in streamed]

        with made.data_file(2).open("r+b") as file:
            file.write(bytes(4 * 24 * 1024))  # all copies of the superblock
        assert "CONFIRM: expected yes" in refused(made, "REPLICA=2")
        done = recover(made, "REPLICA=2", "CONFIRM=yes")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (kept,) = made.data_file(2).parent.glob("*.damaged-*")
        assert kept.read_bytes()[: 24 * 1024] == bytes(24 * 1024)
        assert made.call("status").returncode == 0


@pytest.mark.long
def test_in_a_cluster_that_is_down_the_others_are_started_and_the_lost_one_is_recovered() -> None:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        ledger = Ledger(made.deployment.cluster.addresses)
        ledger.write(1, 500)
        before = ledger.read(500)
        assert made.down().returncode == 0
        made.data_file(1).unlink()
        others = [made.data_file(index).stat().st_ino for index in (0, 2)]

        done = recover(made, "REPLICA=1")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "the cluster is down: starting the replicas other than 1" in done.stdout
        assert ledger.read(500) == before
        assert [made.data_file(index).stat().st_ino for index in (0, 2)] == others
        stop(made, 2)  # from here on nothing commits without the recovered replica
        ledger.write(501, 10)


@pytest.mark.long
def test_what_a_majority_has_lost_is_not_made_from_the_one_that_is_left() -> None:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        Ledger(made.deployment.cluster.addresses).write(1, 500)
        assert made.down().returncode == 0
        for index in (0, 1):
            made.data_file(index).unlink()
        left = made.data_file(2).stat().st_ino

        said = refused(made, "REPLICA=1")
        assert "expected the data files of 2 of 3 replicas, found none of replica 0, 1" in said
        assert "`make restore INVENTORY=inventories/process.py FROM=`" in said
        assert of(made.deployment).states() is None  # nothing was started
        assert [made.data_file(index).exists() for index in range(3)] == [False, False, True]
        assert made.data_file(2).stat().st_ino == left


@pytest.mark.long
def test_of_six_replicas_two_lost_files_are_made_again_one_after_the_other() -> None:
    with sandbox("inventories/process.py", 6) as made:
        assert made.up().returncode == 0
        ledger = Ledger(made.deployment.cluster.addresses)
        ledger.write(1, 500)
        before = ledger.read(500)
        for index in (4, 5):
            stop(made, index)
            made.data_file(index).unlink()
        for index in (4, 5):
            done = recover(made, f"REPLICA={index}")
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert made.call("status").returncode == 0

        assert made.down().returncode == 0
        for index in (0, 1):
            made.data_file(index).unlink()
        for index in (0, 1):
            done = recover(made, f"REPLICA={index}")
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            assert index or "starting the replicas other than 0, 1" in done.stdout
        assert made.call("status").returncode == 0
        assert ledger.read(500) == before
