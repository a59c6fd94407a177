"""What servers say of replicas that somebody has started, and what a person is told of them."""

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

from cluster.checks import foreign
from cluster.checks.adoption import Standing
from cluster.checks.foreign import File, Found, Process
from cluster.config.deployment import Deployment
from cluster.health.health import ReplicaHealth
from cluster.operate import adopt
from cluster.operate.adopt import Survey
from cluster.refusal import Refusal
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.log import ReplicaLog
from cluster.tigerbeetle.ping import Pong
from tests.unit.test_adoption import (
    ADDRESSES,
    COMMITS,
    CONTAINER,
    ID,
    NOTE,
    OWN,
    READ,
    SERVED,
    UNIT,
    foreign_cluster,
    process,
)
from tests.unit.test_rules import fit


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return foreign_cluster(tmp_path)


# --- How it is stopped, and started again ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "stop", "again"),
    [
        (
            {},
            "kill -TERM 812",
            "cd /srv/tb && { setsid sh -c 'exec tigerbeetle start --addresses="
            f"{ADDRESSES} 0_0.tigerbeetle >>/dev/null 2>&1' </dev/null >/dev/null 2>&1 & }}",
        ),
        (
            {"user": "ledger", "output": "/srv/tb/my.log"},
            "kill -TERM 812",
            "cd /srv/tb && { setsid runuser -u ledger -- sh -c 'exec tigerbeetle start --addresses="
            f"{ADDRESSES} 0_0.tigerbeetle >>/srv/tb/my.log 2>&1' </dev/null >/dev/null 2>&1 & }}",
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
    command = ["sh", str(foreign.SCRIPT), str(directory), "3000", "/nowhere"]
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
        Standing(0, "foreign", process("--cache-grid=1GiB"), SERVED, identity=READ),
        Standing(1, "ours"),
        Standing(2, "stopped", file=SERVED, note=NOTE),
        clients=frozenset({"10.1.9.7", "10.1.0.12", "127.0.0.1", "10.9.9.9"}),
    )
    said = adopt.describe(deployment, now)
    grid = deployment.cluster.cache_grid
    for line in (
        f"adopt cluster {ID}, one replica after the other:",
        "replica 0 on 10.1.0.11: pid 812, started by hand, as root",
        f"  holds  cluster {ID}, replica 0 of 3",
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
