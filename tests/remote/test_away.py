"""One server is away: the others' logs, a stop without it, and our own line from every command.

With the emulator. The tests of a runtime run in the order in which they are written: each goes on
where the one before ended.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from cluster.tigerbeetle.waiting import wait_until
from tests.remote.bed import make_bed
from tests.remote.image import Flavour
from tests.remote.machine import Machine
from tests.remote.site import Site, prints, said

pytestmark = [pytest.mark.remote, pytest.mark.long]

FLAVOURS: dict[str, Flavour] = {"systemd": "bare", "docker": "engine"}
_START_TIMEOUT_S = 600


@pytest.fixture(scope="module", params=FLAVOURS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Deployed; then the third server's plug is pulled."""
    with make_bed(FLAVOURS[request.param]) as bed:
        made = Site(bed, runtime=request.param).with_emulator()
        if request.param == "docker":
            made.build_image()
        done = made.up(bootstrap=True)
        assert done.returncode == 0, said(done)[-4000:]
        bed.hosts[2].switch_off()
        yield made


def runs(site: Site, index: int) -> bool:
    """By the server's own word."""
    look = {
        "systemd": f"systemctl is-active --quiet tigerbeetle-{index}",
        "docker": f"docker ps --format '{{{{.Names}}}}' | grep -qx tigerbeetle-{index}",
    }
    return site.bed.hosts[index].inside(look[site.runtime]).returncode == 0


def living(site: Site) -> list[Machine]:
    return site.bed.hosts[:2]


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Of all that our program says: make adds a line of its own."""
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("make: ")]
    return lines[-1]


def test_the_logs_of_the_living_are_printed_and_last_why_one_is_missing(site: Site) -> None:
    done = site.run("python", "-m", "cluster", "logs")
    assert done.returncode == 1, said(done)
    shown = {line.split(" | ")[0] for line in done.stdout.splitlines()}
    assert shown == {"replica-0", "replica-1"}
    assert last_line(done).startswith("replica 2: its log was not read: ")
    assert site.bed.hosts[2].ip in last_line(done)
    assert "Fix: " in last_line(done)
    assert "no log yet" not in said(done)


@pytest.mark.parametrize(
    ("command", "what_now"),
    [
        (("up",), "if it is lost: docs/runbooks/lost-host.md"),
        (("restart",), "if it is lost: docs/runbooks/lost-host.md"),
        (("down",), "to stop the others alone: make down INVENTORY={} AWAY=2"),
        # Whoever names another one has seen something else.
        (("down", "AWAY=1"), "AWAY=2"),
    ],
)
def test_what_needs_every_server_ends_in_our_own_line_and_changes_nothing(
    site: Site, command: tuple[str, ...], what_now: str
) -> None:
    before = [prints(host) for host in living(site)]
    done = site.run("make", *command)
    assert done.returncode == 2
    assert f"replica 2's, {site.bed.hosts[2].ip}: " in last_line(done)
    assert what_now.format(site.inventory) in last_line(done)
    assert "% of hosts" not in said(done)
    assert [prints(host) for host in living(site)] == before
    assert runs(site, 0)
    assert runs(site, 1)


def test_the_others_are_stopped_when_that_is_asked_for(site: Site) -> None:
    done = site.run("make", "down", "AWAY=2")
    assert done.returncode == 0, said(done)[-4000:]
    assert "replica 2 was not stopped: its server was left out" in done.stdout
    assert not runs(site, 0)
    assert not runs(site, 1)


def test_the_server_that_is_back_runs_its_replica_until_it_is_stopped_too(site: Site) -> None:
    site.bed.hosts[2].switch_on()
    wait_until(
        lambda: (runs(site, 2), "not yet"),
        what="replica 2 to start with its server",
        timeout_s=_START_TIMEOUT_S,
    )
    done = site.run("make", "down")
    assert done.returncode == 0, said(done)[-4000:]
    assert not runs(site, 2)
    done = site.run("make", "up")
    assert done.returncode == 0, said(done)[-4000:]
    assert all(runs(site, index) for index in range(3))
