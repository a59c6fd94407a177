"""`make upgrade`: between two genuine releases, under load; and every way that must be refused."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Sandbox, sandbox
from tests.deploy.releases import NEW, OLD, both_or_skip, install_client_or_skip, last_said
from tests.deploy.under_load import workload

#: There is no way back: what is refused comes before what is done.
pytestmark = pytest.mark.random_order(disabled=True)


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    """The releases of the two servers."""
    return both_or_skip()


@pytest.fixture(scope="module")
def old_client(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the old release's client, to go before the installed one."""
    return install_client_or_skip(pair[0], tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def old_cluster(pair: tuple[str, str], old_client: Path) -> Iterator[Sandbox]:
    """A cluster of the old release that is up."""
    with sandbox(
        "inventories/process.py",
        TIGERBEETLE_BIN=OLD,
        LU_CFG_TIGERBEETLE_RELEASE=pair[0],
        PYTHONPATH=str(old_client),
        BACKUP_DIR=str(old_client / "none"),
    ) as made:
        done = made.up()
        assert done.returncode == 0, done.stderr[-4000:]
        yield made


def upgrade(made: Sandbox, to: str, **environ: str) -> subprocess.CompletedProcess[str]:
    with made.having(**environ):
        return made.run("make", "upgrade", f"TO={to}")


def releases(made: Sandbox) -> list[str]:
    """What each replica's log last said that it runs: another way than the ping."""
    logs = [(made.state_dir / f"replica-{i}" / "replica.log").read_text() for i in range(3)]
    return [last_said(log) for log in logs]


@pytest.mark.genuine
@pytest.mark.parametrize(
    ("to", "environ", "message"),
    [
        ("OLD", {}, "found the one that is configured"),
        ("0.17.4", {}, "no release reads a newer one's data files"),
        ("latest", {}, "expected a release such as"),
        ("NEW", {"TIGERBEETLE_BIN": OLD}, "Fix: name the new server in TIGERBEETLE_BIN"),
        ("0.99.0", {"TIGERBEETLE_BIN": NEW}, "to be 0.99.0, found"),
        ("NEW", {"TIGERBEETLE_BIN": NEW}, "CONFIRM: expected yes"),
    ],
)
def test_what_must_not_be_is_refused_and_nothing_is_touched(
    old_cluster: Sandbox, pair: tuple[str, str], to: str, environ: dict[str, str], message: str
) -> None:
    before = old_cluster.pids()
    done = upgrade(old_cluster, {"OLD": pair[0], "NEW": pair[1]}.get(to, to), **environ)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert old_cluster.pids() == before
    assert releases(old_cluster) == [pair[0]] * 3


@pytest.mark.genuine
def test_it_is_refused_while_a_replica_is_away(old_cluster: Sandbox, pair: tuple[str, str]) -> None:
    old_cluster.supervise("stop", "replica-2")
    try:
        done = upgrade(old_cluster, pair[1], TIGERBEETLE_BIN=NEW, CONFIRM="yes")
        assert done.returncode == 2
        assert "expected every replica normal" in done.stderr
        assert "replica 2 stopped" in done.stderr
    finally:
        old_cluster.supervise("start", "replica-2")
        assert old_cluster.up().returncode == 0


@pytest.mark.genuine
def test_the_cluster_moves_to_the_new_release_and_loses_nothing_under_load(
    old_cluster: Sandbox, pair: tuple[str, str], tmp_path: Path
) -> None:
    old, new = pair
    assert releases(old_cluster) == [old] * 3
    with workload(old_cluster, tmp_path) as seen:
        done = upgrade(old_cluster, new, TIGERBEETLE_BIN=NEW, CONFIRM="yes")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    print(
        f"{old} to {new}: {re.findall('after [0-9]+ s', done.stdout)}, longest gap "
        f"{seen.longest_gap_s:.1f} s, {len(seen.operations)} operations"
    )
    assert releases(old_cluster) == [new] * 3
    assert f"every replica runs {new}" in done.stdout
    assert "the newest is" not in done.stdout  # no backup is claimed where there is none
    assert seen.verdict == 0, seen.checked
    assert seen.unanswered == []
    # From now on the old server is what must be refused: a data file has no way back.
    old_cluster.overrides.update(TIGERBEETLE_BIN=NEW, LU_CFG_TIGERBEETLE_RELEASE=new)
    back = upgrade(old_cluster, old, TIGERBEETLE_BIN=OLD)
    assert back.returncode == 2
    assert "no release reads a newer one's data files" in back.stderr


def test_the_emulator_is_not_upgraded(emulator: Sandbox) -> None:
    with emulator.having(CONFIRM="yes"):
        done = emulator.call("upgrade", "99.0.0")
    assert done.returncode == 2
    assert "found the EMULATOR: it is one node without replication" in done.stderr
    assert not emulator.state_dir.exists()
