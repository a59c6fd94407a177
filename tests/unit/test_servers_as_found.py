"""A server that somebody has used before: what it says of accounts, owners and places, and what is
refused of it before any change. The script is run for real, on this machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.checks import facts, rules, script
from cluster.checks.facts import SCRIPT, DataFile, Facts
from cluster.config import servers
from cluster.config.deployment import Deployment, Runtime
from cluster.refusal import Refusal
from tests.unit.test_rules import fit
from tests.unit.test_servers import env_text

DATA = "/var/lib/tigerbeetle"
OF_ROOT = DataFile("7_0.tigerbeetle", 4096, b"", "0:0")
OWN = DataFile("7_0.tigerbeetle", 4096, b"", "10001:10001")


def deployment(directory: Path, runtime: Runtime = "systemd") -> Deployment:
    file = directory / "production.env"
    file.write_text(env_text())
    return Deployment(
        name="production",
        engine="tigerbeetle",
        runtime=runtime,
        cluster=config.load(file, {}, lambda cluster: None),
        state_dir=directory,
        settings=servers.Settings.model_validate({"env_file": "x", "runtime": runtime}),
    )


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"owner": "postgres"}, "uid 10001 to be free, or tigerbeetle's, found postgres's", "uid"),
    ({"group_owner": "ssl"}, "gid 10001 to be free, or tigerbeetle's, found ssl's", "another gid"),
    (
        {"user": "5000"},
        "the user tigerbeetle to have uid 10001, or none of this name, found uid 5000",
        "usermod --uid 10001 tigerbeetle",
    ),
    (
        {"group": "997", "user": "10001", "owner": "tigerbeetle"},
        "the group tigerbeetle to have gid 10001, or none of this name, found gid 997",
        "groupmod --gid 10001 tigerbeetle",
    ),
    (
        {"data_files": (OF_ROOT,)},
        f"{DATA}/replica-0/7_0.tigerbeetle to belong to 10001:10001, which is tigerbeetle, found "
        "it with 0:0",
        f"chown 10001:10001 {DATA}/replica-0/7_0.tigerbeetle, if it is this replica's",
    ),
    (
        {"links": {DATA: "/mnt/ssd/ledger"}},
        f"expected {DATA} itself, found a link to /mnt/ssd/ledger",
        'set data_dir="/mnt/ssd/ledger"',
    ),
    (
        {"links": {f"{DATA}/replica-0": "/mnt/ssd"}},
        "found a link to /mnt/ssd",
        f"mount --bind /mnt/ssd {DATA}/replica-0",
    ),
    (
        {"links": {f"{DATA}/replica-0/7_0.tigerbeetle": "/mnt/ssd/x"}},
        "found a link to /mnt/ssd/x",
        f"mv /mnt/ssd/x {DATA}/replica-0/7_0.tigerbeetle",
    ),
    ({"obstacle": DATA}, f"expected a directory {DATA}, or nothing there", "set data_dir"),
]


@pytest.mark.parametrize("runtime", ["systemd", "docker"])
@pytest.mark.parametrize(("changes", "says", "fix"), REFUSED, ids=[str(c) for c, *_ in REFUSED])
def test_what_would_fail_one_day_is_refused_today(
    tmp_path: Path, changes: dict[str, Any], says: str, fix: str, runtime: Runtime
) -> None:
    with pytest.raises(Refusal) as refused:
        rules.check(deployment(tmp_path, runtime), {0: replace(fit(), **changes)})
    line = str(refused.value)
    assert line.startswith("replica 0's server: expected ")
    assert says in line
    assert fix in line.partition(". Fix: ")[2]
    assert "\n" not in line


ACCEPTED: list[dict[str, Any]] = [
    {"owner": "tigerbeetle", "user": "10001", "group_owner": "tigerbeetle", "group": "10001"},
    {"group_owner": "tigerbeetle", "group": "10001"},  # a first deploy was cut off here
    {"owner": "tigerbeetle", "user": "10001"},
    {"data_files": (OWN,)},
    {"data_files": (replace(OWN, owner=""),)},
    {"place": "/mnt/lib/tigerbeetle/replica-0"},  # /var/lib is a link
    {"place": "/homes/tigerbeetle/replica-0"},
]


@pytest.mark.parametrize("runtime", ["systemd", "docker"])
@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_what_a_deploy_can_work_with_is_accepted(
    tmp_path: Path, changes: dict[str, Any], runtime: Runtime
) -> None:
    rules.check(deployment(tmp_path, runtime), {0: replace(fit(), **changes)})


HIDDEN = ["/home/ledger", "/root/x", "/run/user/1000/x", "/tmp/x", "/var/tmp/x", "/dev/disk"]


@pytest.mark.parametrize("place", HIDDEN)
def test_a_place_that_units_do_not_see_is_refused_for_them_alone(
    tmp_path: Path, place: str
) -> None:
    found = replace(fit(), place=f"{place}/replica-0")
    with pytest.raises(Refusal, match=r'which units do not see\. Fix: .*runtime="docker"'):
        rules.check(deployment(tmp_path), {0: found})
    rules.check(deployment(tmp_path, "docker"), {0: found})


def test_a_place_behind_a_closed_directory_is_refused_where_replicas_walk_there(
    tmp_path: Path,
) -> None:
    found = replace(fit(), unreachable="/srv/closed")
    with pytest.raises(Refusal, match=r"found /srv/closed closed to it\. Fix: chmod o\+x /srv/clo"):
        rules.check(deployment(tmp_path), {0: found})
    rules.check(deployment(tmp_path, "docker"), {0: found})


def test_what_the_rules_hide_is_what_the_unit_hides() -> None:
    unit = (SCRIPT.parent / "tigerbeetle.service.j2").read_text().splitlines()
    assert {"ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes"} <= {*unit}


#: What a server that has been used before would answer.
GETENT = """\
case "$1 $2" in
"passwd 10001") echo postgres:x:10001:10001::/:/bin/sh;;
"passwd tigerbeetle") echo tigerbeetle:x:5000:997::/:/bin/sh;;
"group 10001") echo ssl:x:10001:;;
"group tigerbeetle") echo tigerbeetle:x:997:;;
*) exit 2;;
esac
"""
Observe = Callable[..., Facts]


@pytest.fixture
def observe(tmp_path: Path) -> Observe:
    """Run the script on this machine, without its engine and units; ``shadows`` are programs."""

    def run(directory: Path, **shadows: str) -> Facts:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        for name, text in {"docker": "exit 1", "systemctl": "exit 1", **shadows}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        done = subprocess.run(
            ["sh", "-c", script.command(SCRIPT, "tigerbeetle-0", str(directory), "3999")],
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
            text=True,
            capture_output=True,
            timeout=300,
            check=True,
        )
        assert done.stderr == ""
        return facts.parse(done.stdout.splitlines(), now=0.0, directory=str(directory.parent))

    return run


def test_a_server_tells_whose_the_numbers_are_and_which_the_names_have(
    observe: Observe, tmp_path: Path
) -> None:
    found = observe(tmp_path / "data" / "replica-0", getent=GETENT)
    assert (found.owner, found.user) == ("postgres", "5000")
    assert (found.group_owner, found.group) == ("ssl", "997")
    assert found.account == "5000:997:/:/bin/sh"


def test_a_server_without_such_an_account_tells_of_none(observe: Observe, tmp_path: Path) -> None:
    found = observe(tmp_path / "data" / "replica-0", getent="exit 2", setpriv="exit 0")
    assert {found.owner, found.user, found.group_owner, found.group} == {""}
    assert (found.obstacle, found.unreachable, dict(found.links)) == ("", "", {})
    assert found.place == str(tmp_path.resolve() / "data" / "replica-0")


def test_a_data_file_is_told_with_its_owner_and_one_behind_a_link_with_its_own_size(
    observe: Observe, tmp_path: Path
) -> None:
    replica = tmp_path / "data" / "replica-0"
    replica.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(bytes(8192))
    (replica / "7_0.tigerbeetle").symlink_to(tmp_path / "elsewhere")
    found = observe(replica)
    (file,) = found.data_files
    assert (file.size, file.owner) == (8192, f"{os.getuid()}:{os.getgid()}")
    assert found.links == {f"{replica}/7_0.tigerbeetle": str(tmp_path.resolve() / "elsewhere")}


@pytest.mark.parametrize("is_parent", [True, False])
def test_a_link_in_the_place_of_a_directory_is_told_with_its_target(
    observe: Observe, tmp_path: Path, *, is_parent: bool
) -> None:
    target, data = tmp_path.resolve() / "disk", tmp_path / "data"
    target.mkdir()
    if is_parent:
        data.symlink_to(target)
    else:
        data.mkdir()
        (data / "replica-0").symlink_to(target)
    found = observe(data / "replica-0")
    assert found.links == {str(data if is_parent else data / "replica-0"): str(target)}
    assert found.place == str(target / "replica-0" if is_parent else target)
    assert found.obstacle == ""


def test_a_file_in_the_place_of_a_directory_is_told(observe: Observe, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert observe(tmp_path / "data" / "replica-0").obstacle == str(tmp_path / "data")


@pytest.mark.skipif(os.getuid() != 0, reason="to act as another user takes root")
def test_a_directory_above_that_the_replicas_cannot_enter_is_told(
    observe: Observe, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert observe(closed / "data" / "replica-0").unreachable == str(closed)
    as_it_is = observe(Path("/srv/data/replica-0"))
    assert as_it_is.unreachable == ""


def test_blank_lines_between_what_a_server_prints_say_nothing() -> None:
    said = script.Printed(["", "kernel 6.1", "  ", "address 10.0.0.1"])
    assert (said.one("kernel"), said.each("address")) == ("6.1", [["10.0.0.1"]])
