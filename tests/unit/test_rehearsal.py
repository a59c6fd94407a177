"""A copy of production for a rehearsal has its cluster id: who could take one for the other?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config import PREFIX, inventory
from cluster.config.deployment import Deployment
from cluster.operate.backup import rehearsal
from cluster.refusal import Refusal
from tests.unit.test_servers import env_text

HOSTS = ("10.1.0.11", "10.1.0.12", "10.1.0.13")
ELSEWHERE = ("10.1.0.21", "10.1.0.22", "10.1.0.23")
Written = Callable[..., Deployment]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """An inventory of servers, as a person writes one, read."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def write(name: str, hosts: tuple[str, ...], **settings: Any) -> Deployment:
        env_file, file = tmp_path / f"{name}.env", tmp_path / f"{name}.py"
        env_file.write_text(env_text(hosts))
        env_file.chmod(0o600)
        given = {"env_file": str(env_file), "runtime": "systemd"} | settings
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        file.write_text(
            f"from cluster.servers import on_servers\nhosts = on_servers({name!r}, {arguments})\n"
        )
        return inventory.read(file)

    return write


def refused(original: Deployment, copy: Deployment) -> str:
    with pytest.raises(Refusal) as raised:
        rehearsal.refuse_within_reach(original, copy)
    assert raised.value.exit_code == 2
    said = str(raised.value)
    assert said.startswith("a copy for a rehearsal: expected ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([], []),
        (["10.1.5.0/24"], []),
        (["10.1.5.0/24"], ["10.1.6.0/24"]),
        ([], ["10.1.0.21/32", "10.1.6.0/24"]),
    ],
)
def test_on_servers_of_its_own_that_let_nobody_of_the_original_in_it_is_made(
    written: Written, theirs: list[str], ours: list[str]
) -> None:
    original = written("production", HOSTS, clients=theirs)
    rehearsal.refuse_within_reach(original, written("rehearsal", ELSEWHERE, clients=ours))


def test_a_copy_has_a_name_of_its_own(written: Written) -> None:
    original = written("production", HOSTS)
    renamed = written("other", ELSEWHERE).model_copy(update={"name": "production"})
    assert "another deployment's name than 'production'" in refused(original, renamed)
    assert "another deployment's name" in refused(original, original)


def test_one_shared_server_is_refused(written: Written) -> None:
    original = written("production", HOSTS)
    copy = written("rehearsal", (*ELSEWHERE[:2], HOSTS[2]))
    assert "found 10.1.0.13, which production has" in refused(original, copy)


def test_one_server_behind_another_name_is_refused(written: Written) -> None:
    """Logged in to by its name, with an address that only its neighbours know."""
    original = written("production", HOSTS, ssh_hosts=("db0", "db1", "db2"))
    copy = written("rehearsal", ELSEWHERE, ssh_hosts=("new0", "db1", "new2"))
    assert "found db1, which production has" in refused(original, copy)


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ([], ["10.1.0.0/24"], "clients=10.1.0.0/24, which has production's tigerbeetle-0"),
        ([], ["10.1.0.13/32"], "clients=10.1.0.13/32, which has production's tigerbeetle-2"),
        (["10.1.5.7/32"], ["10.1.5.0/24"], "production's clients 10.1.5.7/32"),
        (["10.1.5.0/24"], ["10.1.5.7/32"], "production's clients 10.1.5.0/24"),
    ],
)
def test_a_firewall_that_lets_the_original_in_is_refused(
    written: Written, theirs: list[str], ours: list[str], told: str
) -> None:
    original = written("production", HOSTS, clients=theirs)
    said = refused(original, written("rehearsal", ELSEWHERE, clients=ours))
    assert told in said
    assert "Fix: take it out of " in said


def test_on_this_machine_a_copy_of_servers_is_made_behind_loopback_alone(written: Written) -> None:
    original = written("production", HOSTS)
    rehearsal.refuse_within_reach(original, inventory.read("inventories/process.py"))
    here = inventory.read("inventories/local.py")
    rehearsal.refuse_within_reach(original, here)
    open_ = here.cluster.model_copy(update={"bind": original.cluster.replicas[0].ip})
    assert "LU_CFG_TIGERBEETLE_BIND=127.0.0.1" in refused(
        original, here.model_copy(update={"cluster": open_})
    )


def test_two_clusters_of_this_machine_have_ports_of_their_own() -> None:
    original, copy = map(inventory.read, ("inventories/emulator.py", "inventories/process.py"))
    assert "127.0.0.1:3000, which emulator has" in refused(original, copy)
    ports = [r.model_copy(update={"port": r.port + 1000}) for r in copy.cluster.replicas]
    moved = copy.cluster.model_copy(update={"replicas": tuple(ports)})
    rehearsal.refuse_within_reach(original, copy.model_copy(update={"cluster": moved}))
