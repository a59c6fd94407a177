"""Which servers that somebody else has started are adopted, and which refused, in what words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.checks import adoption, rules
from cluster.checks.adoption import Standing
from cluster.checks.facts import DataFile, Facts
from cluster.checks.foreign import File, Found, Note, Process
from cluster.config import servers
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.data_file import Identity
from tests.unit.test_rules import fit
from tests.unit.test_servers import HOSTS, env_text

ID = 2**100 + 7
OWN = f"/var/lib/tigerbeetle/replica-0/{ID}_0.tigerbeetle"
ADDRESSES = ",".join(f"{host}:3000" for host in HOSTS)
SERVED = File("/srv/tb/0_0.tigerbeetle", 4096, "0:0", "600", "77", "ext2/ext3", "/")
READ = Identity(ID, 0, 3, "0.17.9")
COMMITS = Canary(True, "committed and read back")


def foreign_cluster(tmp_path: Path) -> Deployment:
    """How a person describes a cluster that is to be adopted."""
    file = tmp_path / "production.env"
    file.write_text(env_text())
    said = {"env_file": "x", "runtime": "systemd", "clients": ["10.1.9.0/24"]}
    return Deployment(
        name="production",
        engine="tigerbeetle",
        runtime="systemd",
        cluster=config.load(file, {}, lambda cluster: None),
        state_dir=tmp_path,
        settings=servers.Settings.model_validate(said),
        servers=tuple(
            servers.Server.of({"ssh_hostname": host, "replica": index})
            for index, host in enumerate(HOSTS)
        ),
    )


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return foreign_cluster(tmp_path)


def process(*options: str, addresses: str = ADDRESSES, **changes: Any) -> Process:
    """A server as a person starts one."""
    arguments = ("tigerbeetle", "start", f"--addresses={addresses}", *options, "0_0.tigerbeetle")
    started = Process(
        pid=812,
        user="root",
        is_listening=True,
        arguments=arguments,
        parent_pid=1,
        parent=("/sbin/init",),
        started_in="/srv/tb",
        group="session-4.scope",
        file=SERVED,
    )
    return replace(started, **changes)


UNIT: dict[str, Any] = {"group": "tb.service", "main_pid": 812, "unit_state": "enabled"}
CONTAINER: dict[str, Any] = {"group": "", "container": ("ledger", "always", "false")}


def judged(
    deployment: Deployment,
    *running: Process,
    seen: Facts | None = None,
    identity: Identity | None = None,
    **found: Any,
) -> Standing:
    """What is said of replica 0's server."""
    its = Found(running, mount="/", **found)
    read = identity or READ
    return adoption.check(deployment, 0, seen or fit(), its, lambda file: read)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        UNIT,
        {"group": "tb.service", "main_pid": 800, "parent_pid": 800, "parent": ("/opt/run.sh",)},
        CONTAINER,
        {"group": "ssh.service", "main_pid": 90},
        {"group": "user@1000.service"},
        {"parent_pid": 700, "parent": ("-bash",)},
        {"parent_pid": 700, "parent": ("/bin/bash", "--login")},
        {"parent_pid": 700, "parent": ("zsh", "-il")},
        {"parent_pid": 700, "parent": ("tmux", "new", "-s", "tb")},
        {"parent_pid": 700, "parent": ("SCREEN", "-S", "tb")},
        {"parent_pid": 700, "parent": ("sshd: root@notty",)},
        {"file": replace(SERVED, path=OWN)},
        {"file": replace(SERVED, owner="1000:1000", mode="640")},
    ],
)
def test_a_server_of_this_cluster_is_adopted_whoever_has_started_it(
    deployment: Deployment, changes: dict[str, Any]
) -> None:
    started = process(**changes)
    wanted = Standing(0, "foreign", started, started.file, identity=READ)
    assert judged(deployment, started) == wanted


@pytest.mark.parametrize(
    "options",
    [
        ("--cache-grid=4GiB",),
        ("--experimental", "--statsd=10.0.0.9:8125"),
        ("--development=false",),
        ("--experimental", "--cache-accounts=1GiB", "--log-debug"),
    ],
)
def test_what_only_makes_it_faster_or_louder_may_differ(
    deployment: Deployment, options: tuple[str, ...]
) -> None:
    assert judged(deployment, process(*options)).state == "foreign"


@pytest.mark.parametrize(
    "addresses",
    [
        ADDRESSES,
        ADDRESSES.replace("10.1.0.11:", "0.0.0.0:"),  # replica 0 listens everywhere
    ],
)
def test_its_own_address_may_be_all_of_its_server_s(deployment: Deployment, addresses: str) -> None:
    assert judged(deployment, process(addresses=addresses)).state == "foreign"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"arguments": ("--development",)}, "pid 812 with --development", "start all without"),
    ({"arguments": ("--development=true",)}, "with --development", "start all without it"),
    ({"arguments": ("--limit-storage=1GiB",)}, "with --limit-storage=1GiB", "start all without it"),
    ({"arguments": ("--limit-request=1MiB",)}, "with --limit-request=1MiB", "start all without it"),
    (
        {"arguments": ("--memory-lsm-manifest=1GiB",)},
        "--memory-lsm-manifest",
        "start all without it",
    ),
    ({"arguments": ("--aof-file=/srv/x",)}, "with --aof-file=/srv/x", "start all without it"),
    ({"arguments": ("--replicate-star",)}, "with --replicate-star.", "start all without it"),
    ({"file": None}, "0_0.tigerbeetle is not open", "a file of this server's own"),
    ({"file": replace(SERVED, mount="/srv")}, "it on /srv, and", "such as /srv/tigerbeetle"),
    ({"group": "tb.service"}, "pid 812 in tb.service", "systemctl disable --now tb.service"),
    (
        {"parent_pid": 7, "parent": ("python3", "/usr/bin/supervisord", "-c", "x")},
        "under pid 7 (python3 /usr/bin/supervisord -c x)",
        "kill 7",
    ),
    ({"parent_pid": 7, "parent": ("bash", "/opt/loop.sh")}, "under pid 7 (bash /opt", "kill 7"),
    ({"parent_pid": 7, "parent": ("sh", "-c", "while :")}, "under pid 7 (sh -c", "kill 7"),
    ({"parent_pid": 7, "parent": ("bash", "-lc", "x")}, "under pid 7 (bash -lc", "kill 7"),
    ({"container": ()}, "a container that Docker does not know", "with its own engine"),
    ({"container": ("ledger", "no", "true")}, "ledger, started with --rm", "docker stop ledger"),
]


@pytest.mark.parametrize(("changes", "found", "fix"), REFUSED, ids=[r[1] for r in REFUSED])
def test_a_server_that_ours_could_not_replace_is_refused(
    deployment: Deployment, changes: dict[str, Any], found: str, fix: str
) -> None:
    others = {name: value for name, value in changes.items() if name != "arguments"}
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(*changes.get("arguments", ()), **others))
    assert_line(str(refused.value), found, fix)


def assert_line(line: str, found: str, fix: str) -> None:
    """One line of the one form, which names the server."""
    assert line.startswith("replica 0's server: expected ")
    before, _, behind = line.partition(". Fix: ")
    assert found in f"{before}."
    assert fix in behind
    assert "\n" not in line


ADDRESSES_REFUSED = [
    ADDRESSES.replace("10.1.0.12", "10.1.0.99"),
    ",".join(reversed(ADDRESSES.split(","))),
    ADDRESSES.rpartition(",")[0],
    ADDRESSES.replace("10.1.0.12:", "0.0.0.0:"),  # another's
    ADDRESSES.replace(":3000", ""),  # then it is 3001
    "3000,3001,3002",
    "",
]


@pytest.mark.parametrize("addresses", ADDRESSES_REFUSED)
def test_other_addresses_than_configured_are_refused(
    deployment: Deployment, addresses: str
) -> None:
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(addresses=addresses))
    assert_line(str(refused.value), f"expected --addresses={ADDRESSES}", "the order counts")


@pytest.mark.parametrize(
    ("identity", "fix"),
    [
        (Identity(77, 0, 3, "0.17.9"), "CLUSTER_ID=77 in the env file"),
        (Identity(ID, 1, 3, "0.17.9"), "into the order of the replicas' indexes"),
        (Identity(ID, 0, 6, "0.17.9"), "describe 6 replicas"),
        (Identity(ID, 3, 3, "0.17.9"), "the order"),  # a standby
    ],
)
def test_a_file_of_another_replica_or_cluster_is_refused(
    deployment: Deployment, identity: Identity, fix: str
) -> None:
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(), identity=identity)
    assert_line(str(refused.value), f"found that of {identity}", fix)


@pytest.mark.parametrize(
    ("starter", "fix"),
    [
        (("tigerbeetle.service", "enabled"), "systemctl disable tigerbeetle.service"),
        (("tb2.service", "enabled-runtime"), "systemctl disable tb2.service"),
        (("/var/spool/cron/crontabs/root", "cron"), "take its line out"),
    ],
)
def test_what_would_start_another_server_is_named(
    deployment: Deployment, starter: tuple[str, str], fix: str
) -> None:
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(), starters=(starter,))
    assert_line(str(refused.value), f"found {starter[0]}, which would", fix)


@pytest.mark.parametrize("starter", [("tb.service", "enabled"), ("x.service", "disabled")])
def test_its_own_unit_and_one_that_is_off_are_none(
    deployment: Deployment, starter: tuple[str, str]
) -> None:
    assert judged(deployment, process(**UNIT), starters=(starter,)).state == "foreign"


def test_two_servers_of_which_none_has_the_port_are_refused(deployment: Deployment) -> None:
    two = [process(is_listening=False, pid=pid) for pid in (5, 6)]
    with pytest.raises(Refusal) as refused:
        judged(deployment, *two)
    assert_line(str(refused.value), "found pid 5 with 0_0.tigerbeetle, pid 6", "stop those")
    assert judged(deployment, two[0]).state == "foreign"  # as behind Docker's proxy
    assert judged(deployment, two[0], process(pid=7)).process == process(pid=7)


def test_a_second_file_in_the_new_place_is_refused(deployment: Deployment) -> None:
    seen = replace(fit(), data_files=(DataFile(f"{ID}_0.tigerbeetle", 4096, b""),))
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(), seen=seen)
    assert_line(str(refused.value), "_0.tigerbeetle beside /srv/tb/0_0", "move it away")
    served_there = process(file=replace(SERVED, path=OWN))
    assert judged(deployment, served_there, seen=seen).state == "foreign"


def test_a_foreign_unit_that_is_called_as_ours_is_refused(deployment: Deployment) -> None:
    """It would be overwritten; ours carries the mark of its settings."""
    seen = replace(fit(), running={"systemd": 812})
    with pytest.raises(Refusal) as refused:
        judged(deployment, process(**UNIT), seen=seen)
    assert_line(str(refused.value), "a unit that is called so", "0_CONTAINER_NAME")
    assert judged(deployment, seen=replace(seen, settings="abc")) == Standing(0, "ours")


NOTE = Note(SERVED.path, "0:0", "600", "77", "start it")


def test_an_adoption_that_was_cut_off_goes_on_from_its_note(deployment: Deployment) -> None:
    stopped = judged(deployment, note=NOTE, noted=SERVED)
    assert stopped == Standing(0, "stopped", file=SERVED, note=NOTE, identity=READ)
    seen = replace(fit(), data_files=(DataFile(f"{ID}_0.tigerbeetle", 4096, b""),))
    moved = judged(deployment, seen=seen, note=NOTE)
    assert moved == Standing(0, "moved", note=NOTE, identity=READ)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"note": NOTE},
        {"note": NOTE, "noted": replace(SERVED, inode="78")},  # another file, in the same place
        {"noted": SERVED},
    ],
)
def test_nothing_is_taken_for_a_data_file_that_nobody_serves(
    deployment: Deployment, found: dict[str, Any]
) -> None:
    with pytest.raises(Refusal) as refused:
        judged(deployment, **found)
    assert_line(
        str(refused.value), "one TigerBeetle server, at 10.1.0.11:3000", "as it was started"
    )


@pytest.mark.parametrize("cut", range(len(str(NOTE).splitlines())))
def test_a_note_that_was_cut_off_is_none(cut: int) -> None:
    assert Note.parse(str(NOTE)) == NOTE
    assert Note.parse("\n".join(str(NOTE).splitlines()[:cut])) is None


def test_another_release_than_the_configured_one_is_refused(deployment: Deployment) -> None:
    release = deployment.cluster.release
    adoption.check_release(deployment, dict.fromkeys(range(3), release))
    for other in ("0.17.4", "0.18.0"):
        with pytest.raises(Refusal) as refused:
            adoption.check_release(deployment, {0: other, 1: release})
        assert_line(str(refused.value), f"found {other} running", f"RELEASE={other}")


def test_the_rules_of_a_deploy_judge_it_as_if_it_were_ours(deployment: Deployment) -> None:
    """Its memory comes back, its port is the replica's, its file takes no more room."""
    seen = replace(
        fit(),
        memory_bytes=2**30,
        disk_bytes=1,
        listening=frozenset({HOSTS[0]}),
        running={"docker": 3},
    )
    started = process("--cache-grid=512MiB")
    as_ours = adoption.as_ours(deployment, {0: seen}, {0: Standing(0, "foreign", started, SERVED)})
    rules.check(deployment, as_ours)
    in_memory = Standing(0, "foreign", started, replace(SERVED, filesystem="tmpfs"))
    with pytest.raises(Refusal, match="tmpfs, which is memory"):
        rules.check(deployment, adoption.as_ours(deployment, {0: seen}, {0: in_memory}))
