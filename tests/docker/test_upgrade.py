"""`make upgrade` in Docker, between two genuine releases under load.

The images are made here, of TIGERBEETLE_OLD_BIN and TIGERBEETLE_NEW_BIN, under names of the test's
own; no registry is asked.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import config
from tests.deploy.releases import NEW, OLD, both_or_skip, install_client_or_skip, last_said
from tests.deploy.under_load import workload
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox, has_base

pytestmark = [pytest.mark.docker, pytest.mark.genuine, pytest.mark.long]

BASE, CUSTOM = "ws-test-upgrade-base", "ws-test-upgrade-custom"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The two releases; their base images are here while the tests run."""
    releases = both_or_skip()
    if not has_base("tigerbeetle"):
        pytest.skip("no base image of the genuine server: .ci/provision-docker base")
    cluster = config.load()
    for server, release in zip((OLD, NEW), releases, strict=True):
        context = tmp_path_factory.mktemp("image")
        shutil.copy(server, context / "tigerbeetle")
        done = docker(
            "build",
            "--network=none",
            "--file=files/tigerbeetle/base.Dockerfile",
            f"--build-arg=ROOT={cluster.image}:{cluster.release}",
            f"--tag={BASE}:{release}",
            str(context),
        )
        assert done.returncode == 0, done.stderr
    try:
        yield releases
    finally:
        made = (f"{name}:{tag}" for name in (BASE, CUSTOM) for tag in (*releases, "latest"))
        docker("rmi", "--force", *made)


@pytest.fixture
def old_cluster(pair: tuple[str, str], tmp_path: Path) -> Iterator[DockerSandbox]:
    """A cluster of the old release that is up."""
    client = install_client_or_skip(pair[0], tmp_path / "client")
    with docker_sandbox(
        "tigerbeetle",
        LU_CFG_TIGERBEETLE_IMAGE=BASE,
        LU_CFG_TIGERBEETLE_CUSTOM_IMAGE=CUSTOM,
        LU_CFG_TIGERBEETLE_RELEASE=pair[0],
        LU_CFG_TIGERBEETLE_CACHE_GRID="64MiB",
        PYTHONPATH=str(client),
        BACKUP_DIR=str(tmp_path / "none"),
    ) as made:
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        yield made


def releases(made: DockerSandbox) -> list[str]:
    """What each replica's log last said that it runs: another way than the ping."""
    return [last_said(docker("logs", name).stderr) for name in made.names]


def test_containers_move_to_the_new_release_and_lose_nothing_under_load(
    old_cluster: DockerSandbox, pair: tuple[str, str], tmp_path: Path
) -> None:
    old, new = pair
    assert releases(old_cluster) == [old] * 3
    volumes = old_cluster.volumes
    with workload(old_cluster, tmp_path) as seen:
        unconfirmed = old_cluster.make("upgrade", f"TO={new}")
        assert unconfirmed.returncode == 2
        assert "CONFIRM: expected yes" in unconfirmed.stderr
        assert releases(old_cluster) == [old] * 3
        done = old_cluster.make("upgrade", f"TO={new}", CONFIRM="yes")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    print(
        f"{old} to {new}: {re.findall('after [0-9]+ s', done.stdout)}, longest gap "
        f"{seen.longest_gap_s:.1f} s, {len(seen.operations)} operations"
    )
    assert releases(old_cluster) == [new] * 3
    images = {old_cluster.inspect(index)["Config"]["Image"] for index in range(3)}
    assert images == {f"{CUSTOM}:{new}"}
    assert old_cluster.volumes == volumes
    assert seen.verdict == 0, seen.checked
    assert seen.unanswered == []
    # A data file has no way back: from now on the old server is what must be refused.
    with old_cluster.having(LU_CFG_TIGERBEETLE_RELEASE=new):
        back = old_cluster.make("upgrade", f"TO={old}")
    assert back.returncode == 2
    assert "no release reads a newer one's data files" in back.stderr
