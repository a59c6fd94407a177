"""One connection to each server, whoever needs it; and what it means when a login fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.config.servers import Host
from cluster.refusal import Refusal
from cluster.runtimes import of, ssh, tunnel
from cluster.runtimes.servers import REFUSED_BY_SSH, UNREACHABLE
from cluster.runtimes.ssh import RefusedBySshError, SshError
from cluster.tigerbeetle.waiting import wait_until
from tests.leases import free_ports
from tests.stand_in_ssh import StandIn, standing_in
from tests.unit.test_units import deployment

SERVER = Host.model_validate({"ssh_hostname": "db0"})
BUSY = "kex_exchange_identification: read: Connection reset by peer"
#: What another program of this user does: it asks the same server.
OTHER = """
from cluster.config.servers import Host
from cluster.runtimes import ssh, tunnel
server = Host(ssh_hostname="db0")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Behind ``tmp_path``, which is to be where it always is."""
    monkeypatch.setattr(ssh, "_failed", {})
    with standing_in(monkeypatch) as made:
        yield made


def program(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER + code], text=True, stdout=subprocess.PIPE, cwd=REPOSITORY
    )


def test_all_who_need_a_server_at_once_log_in_once(stand_in: StandIn) -> None:
    with ThreadPoolExecutor(8) as together:
        said = list(together.map(lambda n: ssh.run(SERVER, f"echo {n}").stdout, range(8)))
    assert said == [f"{n}\n" for n in range(8)]
    assert stand_in.logins == ["db0"]


def test_the_next_program_goes_through_the_same_connection(stand_in: StandIn) -> None:
    ssh.run(SERVER, "true")
    with program("print(ssh.run(server, 'echo here').stdout)") as other:
        assert other.communicate(timeout=100)[0].strip() == "here"
    assert stand_in.logins == ["db0"]


def test_each_way_to_a_server_has_a_connection_of_its_own(stand_in: StandIn) -> None:
    ways = [
        SERVER,
        SERVER.model_copy(update={"port": 2222}),
        SERVER.model_copy(update={"user": "admin"}),
        SERVER.model_copy(update={"key": "/other"}),
        SERVER.model_copy(update={"config": "/other"}),
    ]
    for way in ways * 2:
        ssh.run(way, "true")
    assert stand_in.logins == ["db0"] * len(ways)


def test_root_and_who_asks_sudo_share_a_login(stand_in: StandIn) -> None:
    ssh.connect(SERVER)
    ssh.connect(SERVER.model_copy(update={"sudo": True}))
    assert stand_in.logins == ["db0"]


def test_a_connection_that_has_broken_is_made_again_by_one_login(stand_in: StandIn) -> None:
    ssh.run(SERVER, "true")
    stand_in.end()  # which leaves the socket
    assert [ssh.run(SERVER, "echo yes").stdout for _ in range(3)] == ["yes\n"] * 3
    assert stand_in.logins == ["db0"] * 2


def test_a_proof_is_a_login_whatever_is_shared(stand_in: StandIn) -> None:
    ssh.connect(SERVER)
    ssh.prove(SERVER)
    assert stand_in.logins == ["db0"] * 2
    stand_in.be(failure=BUSY)
    with pytest.raises(RefusedBySshError):
        ssh.prove(SERVER)


@pytest.mark.parametrize("motd", ["", "Welcome!\n", "two\nlines\n", "no end of line"])
def test_what_a_login_prints_is_not_the_command_s(stand_in: StandIn, motd: str) -> None:
    stand_in.be(motd=motd)
    done = ssh.run(SERVER, "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_a_shell_that_runs_no_command_is_told(stand_in: StandIn) -> None:
    stand_in.be(motd="This account is currently not available.\n", shell="nologin")
    with pytest.raises(SshError, match=r"expected a login shell that runs commands, .*Fix: "):
        ssh.run(SERVER, "true")


@pytest.mark.parametrize(
    "said",
    [
        BUSY,
        "kex_exchange_identification: Connection closed by remote host",
        "ssh_exchange_identification: Connection closed by remote host",
        "ssh: connect to host db0 port 22: Connection refused",
        "Connection reset by 10.0.0.11 port 22",
        "banner line contains: Not allowed at this time",
    ],
)
def test_a_server_that_limits_connections_is_waited_for_and_not_repaired(said: str) -> None:
    error = ssh.failure(SERVER, f"a warning\n{said}\n")
    assert isinstance(error, RefusedBySshError)
    assert str(error).startswith("db0: refused by SSH, found: ")
    assert "Fix: wait a minute" in str(error)
    assert "MaxStartups" in str(error)
    assert "repair nothing" in str(error)
    assert "make " not in str(error)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("root@db0: Permission denied (publickey).", "ssh-add"),
        ("Received disconnect: Too many authentication failures", "ssh_key"),
        ("Host key verification failed.", "known_hosts"),
        ("unix_listener: path too long", "try it by hand: ssh db0"),
    ],
)
def test_what_else_a_server_refuses_has_a_fix_of_its_own(said: str, fix: str) -> None:
    error = ssh.failure(SERVER, said)
    assert isinstance(error, RefusedBySshError)
    assert fix in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host db0 port 22: Connection timed out",
        "ssh: connect to host db0 port 22: No route to host",
        "ssh: connect to host db0 port 22: Network is unreachable",
        "ssh: Could not resolve hostname db0: Name or service not known",
        "Connection timed out during banner exchange\nConnection closed by UNKNOWN port 65535",
        "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed",
    ],
)
def test_a_server_out_of_reach_is_another_state(said: str) -> None:
    error = ssh.failure(SERVER, said)
    assert not isinstance(error, RefusedBySshError)
    assert "db0: expected to log in over SSH, found: " in str(error)


def test_a_login_that_was_refused_is_not_tried_again_at_once(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.be(failure=BUSY)
    with ThreadPoolExecutor(4) as together:
        for asked in [together.submit(ssh.run, SERVER, "true") for _ in range(8)]:
            assert isinstance(asked.exception(), RefusedBySshError)
    assert stand_in.logins == ["db0"]
    stand_in.be(failure="")
    monkeypatch.setattr(ssh, "RETRY_S", 0.0)
    ssh.run(SERVER, "true")
    assert stand_in.logins == ["db0"] * 2


@pytest.mark.parametrize(
    ("failure", "state"),
    [(BUSY, REFUSED_BY_SSH), ("ssh: connect to host db0 port 22: No route to host", UNREACHABLE)],
)
def test_replicas_of_servers_that_cannot_be_asked_say_which_it_is(
    stand_in: StandIn, tmp_path: Path, failure: str, state: object
) -> None:
    stand_in.be(failure=failure)
    assert of(deployment(tmp_path)).states() == dict.fromkeys(range(3), state)


def test_sockets_that_others_could_use_are_refused(stand_in: StandIn) -> None:
    place = ssh.connect(SERVER).parent
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    with pytest.raises(Refusal, match="expected a directory of this user's alone, with mode 700"):
        ssh.run(SERVER, "true")
    place.rename(place.with_name("elsewhere"))
    place.symlink_to("elsewhere")
    with pytest.raises(Refusal, match="expected a directory of this user's alone, with mode 700"):
        ssh.run(SERVER, "true")
    assert stand_in.logins == ["db0"]


def test_a_tunnel_is_no_login_and_ends_with_its_program_however_that_ends(
    stand_in: StandIn,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        stand_in.be(port=str(there.getsockname()[1]))
        code = "print(tunnel.port_to(server, '10.1.0.11:3000'), flush=True); input()"
        with program(code) as other:
            assert other.stdout is not None
            port = int(other.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), 10):
                there.accept()[0].close()
            assert stand_in.logins == ["db0"]
            os.kill(other.pid, signal.SIGKILL)
    (opened,) = stand_in.forwards
    assert opened == f"127.0.0.1:{port}:10.1.0.11:3000"
    wait_until(
        lambda: (f"cancel {opened}" in stand_in.said, "not cancelled"),
        what="the tunnel to end",
        timeout_s=30,
    )


def test_a_way_back_is_there_for_as_long_as_it_is_needed(stand_in: StandIn) -> None:
    (there,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        stand_in.be(port=str(port))
        with tunnel.back(SERVER, there, port):
            with socket.create_connection(("127.0.0.1", there), 10):
                here.accept()[0].close()
            (opened,) = stand_in.forwards
            assert opened == f"127.0.0.1:{there}:127.0.0.1:{port}"
            assert f"cancel {opened}" not in stand_in.said
        assert f"cancel {opened}" in stand_in.said


def test_a_way_back_ends_with_the_program_that_has_opened_it(stand_in: StandIn) -> None:
    (there,) = free_ports(1)
    code = f"with tunnel.back(server, {there}, 1):\n    print('open', flush=True); input()"
    with program(code) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        os.kill(other.pid, signal.SIGKILL)
    wait_until(
        lambda: (f"cancel 127.0.0.1:{there}:127.0.0.1:1" in stand_in.said, "not cancelled"),
        what="the way back to end",
        timeout_s=30,
    )


def test_a_tunnel_is_opened_once_and_again_where_it_was_when_it_has_broken(
    stand_in: StandIn,
) -> None:
    way = SERVER.model_copy(update={"user": "another"})
    first = tunnel.port_to(way, "10.1.0.11:3000")
    assert tunnel.port_to(way, "10.1.0.11:3000") == first
    assert len(stand_in.forwards) == 1
    wait_until(lambda: ("run cat" in stand_in.said, "not kept"), what="its keeper", timeout_s=30)
    stand_in.end()
    keeper, _ = tunnel._opened[way, "10.1.0.11:3000"]
    keeper.terminate()
    keeper.wait()
    assert tunnel.port_to(way, "10.1.0.11:3000") == first
    assert stand_in.logins == ["db0"] * 2
