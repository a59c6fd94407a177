"""A freeze of replicas on servers is outlived by a thaw, whatever is killed or cut, at any step."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.operate.backup import freeze
from cluster.refusal import Failed
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import docker
from tests.file_systems import xfs
from tests.remote.bed import Bed, make_bed
from tests.remote.machine import Machine
from tests.remote.site import Site, said
from tests.unit.test_freeze import STEPS, driver

pytestmark = [pytest.mark.remote, pytest.mark.long]


@pytest.fixture(scope="module", params=["bare", "engine"])
def cloning(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with xfs() as place, make_bed(request.param, data=place) as made:
        yield made


@pytest.fixture(scope="module")
def site(cloning: Bed) -> Site:
    """Replicas that run there."""
    made = Site(cloning, "docker" if cloning.flavour == "engine" else "systemd").with_emulator()
    if made.runtime == "docker":
        made.build_image()
    done = made.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    assert "backups freeze all replicas for a moment" in said(done)
    return made


def backup(site: Site, to: Path, *words: str) -> Path:
    done = site.run("make", "backup", f"BACKUP_DIR={to}", *words)
    assert done.returncode == 0, said(done)[-4000:]
    return sorted((to / site.name).glob("*Z"))[-1]


def await_as_before(site: Site) -> None:
    """Every server's process runs, by the server's own /proc, and there is no clone."""
    wait_until(
        lambda: (all(map(is_as_before, site.bed.hosts)), str([*map(seen, site.bed.hosts)])),
        what="all run, without a clone",
        timeout_s=120,
    )


def is_as_before(host: Machine) -> bool:
    states, clones = seen(host)
    return bool(states) and "T" not in states and not clones


def seen(host: Machine) -> tuple[list[str], list[str]]:
    """The states of the threads of the replica, and the clones beside its file."""
    asked = host.inside(
        "for p in $(pgrep -f '[s]tart --addresses'); do cut -d' ' -f3 /proc/$p/task/*/stat; done;"
        "ls /var/lib/tigerbeetle/replica-* | grep clone"
    )
    words = asked.stdout.split()
    return [w for w in words if len(w) == 1], [w for w in words if len(w) > 1]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_whoever_asks_may_be_killed_at_every_step(
    site: Site, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in site.environ.items():
        monkeypatch.setenv(key, value)
    with driver(site.deployment, steps) as asking:
        asking.send_signal(signal.SIGKILL)
        asking.wait(60)
        await_as_before(site)


@pytest.mark.parametrize("steps", [2, 3])
def test_the_way_to_a_server_may_be_cut_while_all_are_frozen(
    site: Site, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence: that server is told nothing, and its timer does it all."""
    for key, value in site.environ.items():
        monkeypatch.setenv(key, value)
    away = site.bed.hosts[1]
    with freeze.beside(site.deployment, "cut") as freezer:
        for word, answer in [*STEPS.items()][:steps]:
            freezer.step(word, answer, time.monotonic() + 60)
        docker("network", "disconnect", site.bed.network, away.container)
        try:
            await_as_before(site)
            with pytest.raises(Failed, match=r"expected it (frozen|cloned|thawed) .* no backup"):
                freezer.step("thaw", "thawed", time.monotonic() + 5)
        finally:
            docker("network", "connect", f"--ip={away.ip}", site.bed.network, away.container)
    assert site.run("make", "up").returncode == 0
    backup(site, tmp_path, "WAY=freeze")
    await_as_before(site)
