"""pyinfra through the shared connection. The server is this machine, behind a stand-in."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from tests.stand_in_ssh import StandIn, standing_in

_PYINFRA = Path(sys.executable).with_name("pyinfra")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with standing_in(monkeypatch) as made:
        yield made


def pyinfra(tmp_path: Path, deploy: str) -> subprocess.CompletedProcess[str]:
    """What a person types here, for two hosts."""
    inventory = tmp_path / "two.py"
    inventory.write_text("hosts = [(n, {'ssh_hostname': n, 'ssh_user': 'me'}) for n in 'ab']\n")
    file = tmp_path / "d.py"
    head = "from io import StringIO\nfrom pyinfra import host\n"
    file.write_text(f"{head}from pyinfra.operations import files, python, server\n{deploy}")
    return subprocess.run(
        [_PYINFRA, "--yes", inventory, file],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )


def test_one_login_a_host_carries_a_whole_deploy_and_the_next(
    stand_in: StandIn, tmp_path: Path
) -> None:
    deploy = f"""
files.put(name="Write", src=StringIO("text"), dest=f"{tmp_path}/{{host.name}}-put", mode="640")
server.shell(name="Say", commands=["echo $((40 + 2)) >{tmp_path}/$$-said", "cat"], _stdin="x")
files.get(name="Bring", src=f"{tmp_path}/{{host.name}}-put", dest=f"{tmp_path}/{{host.name}}-got")
"""
    for _ in range(2):
        done = pyinfra(tmp_path, deploy)
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stand_in.logins) == ["a", "b"]
    for host in "ab":
        put = tmp_path / f"{host}-put"
        assert (put.read_text(), stat.S_IMODE(put.stat().st_mode)) == ("text", 0o640)
        assert (tmp_path / f"{host}-got").read_text() == "text"
    assert {path.read_text() for path in tmp_path.glob("*-said")} == {"42\n"}


def test_what_a_login_prints_is_in_no_fact_and_in_no_file(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.be(motd="Welcome!\nuid=0(root) no end of line")
    (tmp_path / "there").write_bytes(whole := bytes(range(256)) * 5000)
    deploy = f"""
from pyinfra.facts.server import Command
assert host.get_fact(Command, "echo fact") == "fact"
files.get(name="Bring", src="{tmp_path}/there", dest=f"{tmp_path}/{{host.name}}-got")
files.put(name="Send", src="{tmp_path}/there", dest=f"{tmp_path}/{{host.name}}-put")
"""
    done = pyinfra(tmp_path, deploy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {p.read_bytes() for p in tmp_path.glob("?-???")} == {whole}
    assert len(list(tmp_path.glob("?-???"))) == 4


def test_a_file_that_is_replaced_keeps_its_mode_and_is_never_half_there(
    stand_in: StandIn, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("former")
    there.chmod(0o600)
    before = there.stat().st_ino
    deploy = f"""
if host.name == "a":
    files.put(name="Write", src=StringIO("newer"), dest="{there}")
"""
    done = pyinfra(tmp_path, deploy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (there.read_text(), stat.S_IMODE(there.stat().st_mode)) == ("newer", 0o600)
    assert there.stat().st_ino != before  # renamed into place
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_did_not_arrive_whole_replaces_nothing(
    stand_in: StandIn, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("former")
    deploy = f"""
import os
from tasks.support import connector
connector._PUT = connector._PUT.replace("cat >", "head -c 3 >")
files.put(name="Write", src=StringIO("newer"), dest="{there}")
"""
    done = pyinfra(tmp_path, deploy)
    assert done.returncode != 0
    assert there.read_text() == "former"
    assert not list(tmp_path.glob("*.part"))


def test_sockets_that_others_could_use_are_refused_without_a_traceback(
    stand_in: StandIn, tmp_path: Path
) -> None:
    (stand_in.directory / f"ws-ssh-{os.getuid()}").mkdir(mode=0o755)
    done = pyinfra(tmp_path, "server.shell(name='Never', commands=['true'])\n")
    assert done.returncode != 0
    assert "expected a directory of this user's alone" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert stand_in.logins == []


@pytest.mark.parametrize("command", ["exit 3", "echo why >&2; exit 1"])
def test_a_command_that_fails_fails_its_operation(
    stand_in: StandIn, tmp_path: Path, command: str
) -> None:
    done = pyinfra(tmp_path, f"server.shell(name='Fail', commands=[{command!r}])\n")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert ("why" in command) == ("why" in done.stdout + done.stderr)


def test_a_command_that_takes_too_long_is_ended(stand_in: StandIn, tmp_path: Path) -> None:
    command = f"sleep 98765.{os.getpid()}"  # nobody else's
    done = pyinfra(tmp_path, f"server.shell(name='Sleep', commands=[{command!r}], _timeout=1)\n")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr

    def is_gone() -> tuple[bool, str]:
        found = subprocess.run(
            ["pgrep", "-f", f"^{command}"], capture_output=True, text=True, check=False
        )
        return found.stdout == "", found.stdout

    wait_until(is_gone, what="what was begun to end", timeout_s=60)


def test_a_host_that_limits_logins_is_told_of_in_one_line(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.be(failure="kex_exchange_identification: Connection closed by remote host")
    done = pyinfra(tmp_path, "server.shell(name='Never', commands=['true'])\n")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "a: refused by SSH, found: kex_exchange_identification: " in said
    assert "Fix: wait a minute" in said
    assert "Traceback" not in said
