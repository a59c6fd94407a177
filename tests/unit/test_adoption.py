"""Which servers that somebody else has started are adopted, and which refused, in what words."""

from __future__ import annotations

import base64
import gzip
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import config
from cluster.checks import adoption, foreign, rules
from cluster.checks.adoption import Standing
from cluster.checks.facts import DataFile, Facts
from cluster.checks.foreign import File, Found, Note, Process
from cluster.config import Cluster, servers
from cluster.config.deployment import Deployment
from cluster.health.health import ReplicaHealth
from cluster.operate import adopt
from cluster.operate.adopt import Survey
from cluster.refusal import Refusal
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.data_file import Identity
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong
from tests.unit.test_rules import fit
from tests.unit.test_servers import HOSTS, env_text

ID = 2**100 + 7
OWN = f"/var/lib/tigerbeetle/replica-0/{ID}_0.tigerbeetle"
ADDRESSES = ",".join(f"{host}:3000" for host in HOSTS)
SERVED = File("/srv/tb/0_0.tigerbeetle", 4096, "0:0", "600", "77", "ext2/ext3", "/")
COMMITS = Canary(True, "committed and read back")


@pytest.fixture(name="cluster")
def described(tmp_path: Path) -> Cluster:
    file = tmp_path / "production.env"
    file.write_text(env_text())
    return config.load(file, {}, lambda cluster: None)


@pytest.fixture
def deployment(cluster: Cluster, tmp_path: Path) -> Deployment:
    said = {"env_file": "x", "runtime": "systemd", "clients": ["10.1.9.0/24"]}
    return Deployment(
        name="production",
        engine="tigerbeetle",
        runtime="systemd",
        cluster=cluster,
        state_dir=tmp_path,
        settings=servers.Settings.model_validate(said),
        servers=tuple(
            servers.Server.of({"ssh_hostname": host, "replica": index})
            for index, host in enumerate(HOSTS)
        ),
    )


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
    read = identity or Identity(ID, 0, 3, "0.17.9")
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
    assert judged(deployment, started) == Standing(0, "foreign", started, started.file)


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
    ({"arguments": ("--development",)}, "pid 812 with --development", "start all replicas without"),
    ({"arguments": ("--development=true",)}, "with --development", "without it"),
    ({"arguments": ("--limit-storage=1GiB",)}, "with --limit-storage=1GiB", "start it without"),
    ({"arguments": ("--limit-request=1MiB",)}, "with --limit-request=1MiB", "start it without"),
    ({"arguments": ("--memory-lsm-manifest=1GiB",)}, "--memory-lsm-manifest", "start it without"),
    ({"arguments": ("--aof-file=/srv/x",)}, "with --aof-file=/srv/x", "start it without"),
    ({"arguments": ("--replicate-star",)}, "with --replicate-star.", "start it without"),
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
    assert stopped == Standing(0, "stopped", file=SERVED, note=NOTE)
    seen = replace(fit(), data_files=(DataFile(f"{ID}_0.tigerbeetle", 4096, b""),))
    assert judged(deployment, seen=seen, note=NOTE) == Standing(0, "moved", note=NOTE)


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


# --- How it is stopped, and started again ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "stop", "again"),
    [
        (
            {},
            "kill -TERM 812",
            "cd /srv/tb && { setsid tigerbeetle start --addresses="
            f"{ADDRESSES} 0_0.tigerbeetle </dev/null >>/dev/null 2>&1 & }}",
        ),
        (
            {"user": "ledger", "output": "/srv/tb/my log"},
            "kill -TERM 812",
            "cd /srv/tb && { setsid runuser -u ledger -- tigerbeetle start --addresses="
            f"{ADDRESSES} 0_0.tigerbeetle </dev/null >>'/srv/tb/my log' 2>&1 & }}",
        ),
        (
            UNIT,
            "systemctl disable --quiet tb.service; systemctl stop tb.service",
            "systemctl enable --quiet tb.service; systemctl start tb.service",
        ),
        (
            UNIT | {"unit_state": "static"},
            "systemctl stop tb.service",
            "systemctl start tb.service",
        ),
        (
            CONTAINER,
            "docker update --restart=no ledger >/dev/null && docker stop ledger >/dev/null",
            "docker update --restart=always ledger >/dev/null && docker start ledger",
        ),
    ],
)
def test_it_is_stopped_and_started_again_by_whoever_has_started_it(
    changes: dict[str, Any], stop: str, again: str
) -> None:
    started = process(**changes)
    assert (started.stop, started.again) == (stop, again)


# --- What a server says ---------------------------------------------------------------------------


def word(text: str | bytes) -> str:
    whole = text.encode() if isinstance(text, str) else text
    return base64.b64encode(whole).decode()


SAID = f"""\
mount {word("/")}
note {word(str(NOTE))}
file 0 {word("/srv/tb/0_0.tigerbeetle")} 4096 0 0 600 77 ext2/ext3 {word("/")}
head 0 {word(gzip.compress(b"head"))}
process 812 ledger yes 1
arguments 812 {word(chr(0).join(["tb", "start", "--addresses=10.1.0.11:3000", "a b", ""]))}
parent 812 {word("/sbin/init" + chr(0))}
started_in 812 {word("/srv/my data")}
output 812 {word("/srv/log")}
group 812 tb.service 812 enabled
file 812 {word("/srv/my data/a b")} 8192 1000 1001 640 78 xfs {word("/srv")}
head 812 {word(gzip.compress(b"its head"))}
log 812 {word(gzip.compress(b"one line" + bytes([10]) + b"another"))}
process 813 UNKNOWN no 700
arguments 813 {word("tb" + chr(0) + "start" + chr(0) + "/data/x" + chr(0))}
parent 813{" "}
started_in 813 {word("/")}
container 813 {"a" * 64} /ledger unless-stopped false
log 813 {word(gzip.compress(b""))}
process 814 root no 1
arguments 814 {word("tb" + chr(0) + "start" + chr(0) + "x" + chr(0))}
container 814{" "}
process 815 root no 1
arguments 815 {word("tb" + chr(0) + "start" + chr(0) + "x" + chr(0))}
group 815 user@1000.service 99{" "}
starter tb.service enabled
starter old.service{" "}
client 10.1.9.7
client 10.1.0.12
"""


def test_what_a_server_says_is_read() -> None:
    found = foreign.parse(SAID.splitlines())
    first, second, third, fourth = found.processes
    assert first == Process(
        pid=812,
        user="ledger",
        is_listening=True,
        arguments=("tb", "start", "--addresses=10.1.0.11:3000", "a b"),
        parent_pid=1,
        parent=("/sbin/init",),
        started_in="/srv/my data",
        output="/srv/log",
        group="tb.service",
        main_pid=812,
        unit_state="enabled",
        file=File("/srv/my data/a b", 8192, "1000:1001", "640", "78", "xfs", "/srv", b"its head"),
        log=("one line", "another"),
    )
    assert (second.container, second.file, second.starter) == (
        ("ledger", "unless-stopped", "false"),
        None,
        "container",
    )
    assert (third.container, third.starter) == ((), "container")
    assert (fourth.group, fourth.main_pid, fourth.starter) == ("user@1000.service", 99, "hand")
    assert found.note == NOTE
    assert found.noted == replace(SERVED, head=b"head")
    assert found.starters == (("tb.service", "enabled"), ("old.service", ""))
    assert found.clients == {"10.1.9.7", "10.1.0.12"}
    assert foreign.parse([]) == Found()


#: Called `start`, it is what bash runs: it holds its last argument as a server holds a data file.
_HOLDS = 'exec 3<"${@: -1}"; flock 3; echo "0N: (replica): 0N: hello" >&2; read -r _'


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """What looks like a server to the script, with its log in a file."""
    (directory / "start").write_text(_HOLDS)
    (directory / "0_0.tigerbeetle").write_bytes(b"ledger")
    command = ["tigerbeetle", "start", f"--addresses={ADDRESSES}", *options, "0_0.tigerbeetle"]
    with (directory / "log").open("wb") as log:
        running = subprocess.Popen(
            command,
            executable="/bin/bash",
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        while b"hello" not in (directory / "log").read_bytes():
            assert running.poll() is None
        yield running
    finally:
        running.kill()
        running.communicate()


def asked(directory: Path) -> Found:
    """What the script prints of this machine."""
    command = ["sh", str(foreign.SCRIPT), str(directory), "3000"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return foreign.parse(said.stdout.splitlines())


def test_the_script_finds_a_server_by_what_it_is_called_with(tmp_path: Path) -> None:
    with serving(tmp_path, "--cache-grid=1GiB") as running:
        own = [p for p in asked(tmp_path / "place").processes if p.pid == running.pid]
    (found,) = own
    assert found.arguments[2:4] == (f"--addresses={ADDRESSES}", "--cache-grid=1GiB")
    assert (found.user, found.started_in) == (tmp_path.owner(), str(tmp_path))
    assert found.output == str(tmp_path / "log")
    assert found.file is not None
    assert found.file.path == str(tmp_path / "0_0.tigerbeetle")
    assert (found.file.size, found.file.head) == (6, b"ledger")
    assert found.log[-1].endswith("hello")


def test_the_script_does_not_find_the_file_of_one_whose_file_was_removed(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        (tmp_path / "0_0.tigerbeetle").unlink()
        (found,) = [p for p in asked(tmp_path).processes if p.pid == running.pid]
        assert found.file is None
        (tmp_path / "0_0.tigerbeetle").write_bytes(b"another")
        (found,) = [p for p in asked(tmp_path).processes if p.pid == running.pid]
        assert found.file is None


# --- How it is, before and after ------------------------------------------------------------------


def of(deployment: Deployment, index: int, **changes: Any) -> ReplicaHealth:
    """A replica that somebody else runs, as a deploy's own eyes see it."""
    seen = ReplicaHealth(
        replica=deployment.cluster.replicas[index],
        process="DOWN",
        pid=0,
        port_open=True,
        log=ReplicaLog(),
        pong=Pong(replica=index, release="0.17.9", view=4, ms=1.0),
        newest_view=4,
    )
    return replace(seen, **changes)


def test_a_server_without_a_log_is_judged_by_its_pong(deployment: Deployment) -> None:
    primary = adopt.as_running(of(deployment, 1), process(), 3)
    assert (primary.is_normal, primary.pid, primary.log.role) == (True, 812, "primary")
    assert adopt.as_running(of(deployment, 2), process(), 3).log.role == "backup"
    for late in ({"pong": None}, {"newest_view": 5}, {"port_open": False}):
        assert not adopt.as_running(of(deployment, 2, **late), process(), 3).is_normal


@pytest.mark.parametrize(
    ("line", "is_normal"),
    [
        ("info(replica): 2n: hello", True),
        ("info(replica): 2v: hello", False),
        ("info(replica): 2r: hello", False),
    ],
)
def test_a_server_with_a_log_is_judged_by_it(
    deployment: Deployment, line: str, is_normal: bool
) -> None:
    seen = adopt.as_running(of(deployment, 2), process(log=(line,)), 3)
    assert seen.is_normal == is_normal


def surveyed(*standings: Standing, clients: frozenset[str] = frozenset()) -> Survey:
    found = {s.index: Found(clients=clients, note=s.note) for s in standings}
    return Survey({s.index: fit() for s in standings}, found, {s.index: s for s in standings})


def test_a_cluster_that_is_not_well_is_refused(deployment: Deployment) -> None:
    now = surveyed(*(Standing(i, "foreign", process()) for i in range(3)))
    well = [adopt.as_running(of(deployment, i), process(), 3) for i in range(3)]
    adopt.refuse_unwell(now, well, COMMITS)
    silent = adopt.as_running(of(deployment, 2, pong=None), process(), 3)
    for replicas, canary, said in (
        ([*well[:2], silent], COMMITS, "found replica 2 wedged"),
        (well, Canary(False, "no commit within 15 s"), "found no commit within 15 s"),
    ):
        with pytest.raises(Refusal, match=said):
            adopt.refuse_unwell(now, replicas, canary)


def test_what_was_cut_off_may_be_away(deployment: Deployment) -> None:
    now = surveyed(Standing(0, "ours"), Standing(1, "stopped"), Standing(2, "foreign", process()))
    well = [adopt.as_running(of(deployment, i), process(), 3) for i in range(3)]
    adopt.refuse_unwell(now, [well[0], of(deployment, 1, pong=None), well[2]], None)


def test_what_a_person_agrees_to_says_what_is_there_and_what_will_be_done(
    deployment: Deployment,
) -> None:
    now = surveyed(
        Standing(0, "foreign", process("--cache-grid=1GiB"), SERVED),
        Standing(1, "ours"),
        Standing(2, "stopped", file=SERVED, note=NOTE),
        clients=frozenset({"10.1.9.7", "10.1.0.12", "127.0.0.1", "10.9.9.9"}),
    )
    said = adopt.describe(deployment, now)
    grid = deployment.cluster.cache_grid
    for line in (
        f"adopt cluster {ID}, one replica after the other:",
        "replica 0 on 10.1.0.11: pid 812, started by hand, as root",
        "  file   /srv/tb/0_0.tigerbeetle, of uid 0, 4,096 bytes",
        f"  differs --cache-grid 1GiB, then {grid}",
        f"  to do  kill -TERM 812; rename the file to {OWN}; give it to tigerbeetle; "
        "start tigerbeetle-0",
        "  FIREWALL: 10.9.9.9 is connected, and will be cut off: not in clients",
        "replica 1 on 10.1.0.12: runs as a deploy runs it",
        "  nothing to do",
        "replica 2 on 10.1.0.13: does not run, an adoption was cut off",
    ):
        assert line in said.splitlines()


def test_the_last_word_says_who_runs_what() -> None:
    now = surveyed(
        Standing(0, "ours"),
        Standing(1, "stopped", file=SERVED, note=NOTE),
        Standing(2, "foreign", process(**UNIT), SERVED),
    )
    assert adopt.how(now) == (
        "replica 0 is adopted; replica 1 does not run, an adoption was cut off, its data file is "
        "/srv/tb/0_0.tigerbeetle; replica 2 pid 812, started by tb.service"
    )


def test_the_emulator_and_this_machine_are_refused(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    look: Callable[..., Mapping[int, Standing]] = pytest.fail
    monkeypatch.setattr(adopt, "look", look)
    with pytest.raises(Refusal, match="found the EMULATOR"):
        adopt.survey(deployment.model_copy(update={"engine": "emulator"}))
    with pytest.raises(Refusal, match="found one of this machine"):
        adopt.survey(deployment.model_copy(update={"settings": None}))


def test_where_nothing_runs_a_deploy_is_named(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state, said in (("missing", "none on any"), ("moved", "only replicas that a deploy")):
        now = surveyed(*(Standing(i, state) for i in range(3)))  # type: ignore[arg-type]
        monkeypatch.setattr(adopt, "look", lambda _, now=now: now)
        with pytest.raises(Refusal, match=said) as refused:
            adopt.survey(deployment)
        assert f"Fix: make up INVENTORY={shlex.quote(deployment.file)}" in str(refused.value)
