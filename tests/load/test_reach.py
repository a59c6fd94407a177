"""A cluster that only SSH reaches: loads and audits open tunnels, and record where clients find it.

``ssh`` is a stand-in whose tunnels end at an emulator of the suite; tests/remote has the real one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.runtimes import tunnel
from loadtests.run import target
from loadtests.run.result import Target, read_audit, read_manifest, read_result
from loadtests.run.servers import Servers, own_addresses
from tests.load.conftest import CLUSTER_ID, Program, Server
from tests.stand_in_ssh import StandIn, standing_in
from tests.unit.test_servers import env_text

HOSTS = ("10.1.0.11", "10.1.0.12", "10.1.0.13")
LISTED = ",".join(f"{host}:3000" for host in HOSTS)


@pytest.fixture
def behind_ssh(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandIn]:
    """$INVENTORY names three servers behind SSH; the tunnels that were opened to them."""
    env_file = tmp_path / "eu.env"
    env_file.write_text(env_text(HOSTS, {"CLUSTER_ID": str(CLUSTER_ID)}))
    inventory = tmp_path / "eu.py"
    inventory.write_text(
        "from cluster.servers import on_servers\n"
        f"hosts = on_servers('production', env_file={str(env_file)!r}, runtime='systemd',\n"
        "    engine='emulator', reach='tunnel', development=True)\n"
    )
    monkeypatch.setenv("INVENTORY", str(inventory))
    with standing_in(monkeypatch) as made:
        made.be(port=str(server.port))
        yield made


@pytest.mark.long
def test_a_load_through_tunnels_is_audited_through_the_same_and_later_through_others(
    behind_ssh: StandIn, program: Program
) -> None:
    options = ["--users", "5", "--run-time", "3", "--warmup-s", "1", "--wallets", "50"]
    done = program(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(behind_ssh.forwards) == len(HOSTS)
    run = program.newest
    recorded = read_manifest(run).target
    assert (recorded.addresses, recorded.inventory) == (LISTED, os.environ["INVENTORY"])
    result, found = read_result(run), read_audit(run)
    assert result and found
    assert (found.verdict, result.servers) == ("passed", [])
    assert result.transfers_acknowledged > 0

    (run / "audit.json").unlink()
    done = program(command="audit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "audit passed: cluster 7 (production, emulator): " in done.stdout
    assert len(behind_ssh.forwards) == 2 * len(HOSTS)
    assert len(behind_ssh.logins) == len(HOSTS)

    done = program("--run-time", "1", command="workload")
    assert done.returncode == 0, done.stdout + done.stderr
    done = program(command="check")
    assert "history passed: cluster 7 (production, emulator): " in done.stdout, done.stderr

    # The same cluster, described by a file that has been moved: it says through what.
    moved = Path(os.environ["INVENTORY"]).rename(behind_ssh.directory / "moved.py")
    done = program("--inventory", str(moved), command="audit")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cluster_that_answers_through_no_tunnel_is_told_of(
    behind_ssh: StandIn, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind_ssh.be(port="1")
    done = program("--users", "5", "--run-time", "1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: cluster 7: no reply within" in done.stderr


@pytest.fixture
def found(behind_ssh: StandIn, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The target, with tunnels that end at ports 40000 to 40002."""
    monkeypatch.setattr(tunnel, "_port_to", lambda _, replica: 40_000 + replica.index)
    return target.resolve(cluster_id=None, addresses=None, engine=None)


def test_what_is_recorded_outlives_the_tunnel(found: Target) -> None:
    assert (found.deployment, found.addresses) == ("production", LISTED)
    assert target.way(found) == "127.0.0.1:40000,127.0.0.1:40001,127.0.0.1:40002"


def test_an_inventory_that_describes_another_cluster_now_is_no_way_to_this_one(
    found: Target,
) -> None:
    for changed in ({"cluster_id": "8"}, {"addresses": "10.1.0.11:4000"}):
        other = found.model_copy(update=changed)
        assert target.way(other) == other.addresses


def test_without_its_inventory_the_recorded_addresses_are_all_there_is(found: Target) -> None:
    for gone in ("", "inventories/nowhere.py"):
        assert target.way(found.model_copy(update={"inventory": gone})) == LISTED


def test_a_manifest_from_before_inventories_were_recorded_can_be_read(found: Target) -> None:
    old = found.model_dump(exclude={"inventory"})
    assert target.way(Target.model_validate(old)) == LISTED


def test_only_replicas_on_this_machine_are_measured() -> None:
    assert "127.0.0.1" in own_addresses()
    here = Servers(f"127.0.0.1:3000,{HOSTS[1]}:3001,3002")
    assert here._ports == {3000: 0, 3002: 2}
