"""How an inventory says where and as whom each host is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.config import inventory, ways
from cluster.refusal import Refusal
from cluster.runtimes import ssh
from tests.unit.test_servers import env_file, env_text, hosts_of, refusal

__all__ = ["env_file"]  # a fixture

CONFIGURED = """#!/bin/sh
echo "$*" >>{log}
for host; do :; done
case $host in
  odd) echo "Bad configuration option: odd" >&2; exit 255 ;;
  *) printf 'host %s\\nuser of-%s\\nport 2200\\nuser second\\n' "$host" "$host" ;;
esac
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh -G` that knows everybody; what it was asked."""
    log, program = tmp_path / "asked", tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    log.touch()
    program.write_text(CONFIGURED.format(log=log))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("db0", ("db0", "root", 22)),
        ("admin@db0", ("db0", "admin", 22)),
        ("db0:2222", ("db0", "root", 2222)),
        ("admin@db0.example.com:2222", ("db0.example.com", "admin", 2222)),
        ("10.0.0.11:2222", ("10.0.0.11", "root", 2222)),
        ("[fd00::1]:2222", ("fd00::1", "root", 2222)),
        ("admin@[fd00::1]", ("fd00::1", "admin", 22)),
        ("fd00::1", ("fd00::1", "root", 22)),
    ],
)
def test_a_name_may_say_user_and_port(written: str, way: tuple[str, str, int]) -> None:
    assert ways.of(written, "root", 22) == way


@pytest.mark.parametrize(
    "written",
    [
        "",
        "@db0",
        "db0:",
        "a b",
        "db0:ssh",
        "a@b@c",
        "-oProxyCommand=x",
        "-l@db0",
        "[db0",
        "a:99999",
    ],
)
def test_what_is_no_name_is_refused(written: str) -> None:
    with pytest.raises(Refusal, match=r"^ssh_hosts: expected .*Fix: "):
        ways.of(written, "root", 22)


def test_what_the_inventory_leaves_to_ssh_is_what_ssh_says(configured: Path) -> None:
    assert ways.of("db0", None, None) == ("db0", "of-db0", 2200)
    assert ways.of("db0", None, 22, "/some/config") == ("db0", "of-db0", 22)
    assert ways.of("me@db0", None, None) == ("db0", "me", 2200)
    assert configured.read_text().splitlines() == ["-G db0", "-G -F /some/config db0", "-G db0"]


def test_ssh_is_not_asked_for_what_the_inventory_says(configured: Path) -> None:
    assert ways.of("me@db0:22", None, None) == ("db0", "me", 22)
    assert ways.of("db0", "root", 22) == ("db0", "root", 22)
    assert configured.read_text() == ""


def test_a_configuration_that_ssh_cannot_read_is_refused(configured: Path) -> None:
    with pytest.raises(Refusal, match=r"found .*Bad configuration option: odd"):
        ways.of("odd", None, None)


def test_each_host_has_its_own_user_and_port(env_file: Path) -> None:
    hosts = hosts_of(env_file, ssh_hosts=("admin@a:2222", "b", "root@c"), ssh_user="ops")
    servers = inventory.of_hosts([data for _, data in hosts]).servers
    assert [(s.hostname, s.user, s.port, s.sudo) for s in servers] == [
        ("a", "admin", 2222, True),
        ("b", "ops", 22, True),
        ("c", "root", 22, False),
    ]


def test_aliases_bring_their_users_and_ports(env_file: Path, configured: Path) -> None:
    config = "/etc/ssh/for-us"
    names, file = ("a", "b", "c"), {"ssh_config_file": config}
    hosts = hosts_of(env_file, ssh_hosts=names, ssh_user=None, ssh_port=None, **file)
    servers = inventory.of_hosts([data for _, data in hosts]).servers
    assert [(s.user, s.port) for s in servers] == [(f"of-{n}", 2200) for n in names]
    assert all(f" -F {config} " in " ".join(ssh.command(server)) for server in servers)


def test_one_address_may_lead_to_several_servers_by_its_ports(env_file: Path) -> None:
    hosts = hosts_of(env_file, ssh_hosts=("nat:2201", "nat:2202", "nat:2203"))
    assert [data["ssh_port"] for _, data in hosts] == [2201, 2202, 2203]


def test_one_port_of_one_address_is_one_server(
    capsys: pytest.CaptureFixture[str], env_file: Path
) -> None:
    line = refusal(capsys, env_file, ssh_hosts=("nat:2201", "admin@nat:2201", "nat:2203"))
    assert "expected a server of its own for each replica" in line
    assert "found nat:2201 for 2 replicas" in line


def test_the_monitoring_host_s_name_may_say_user_and_port(env_file: Path) -> None:
    env_file.write_text(env_text(changes={"STATSD": "10.1.0.20:8125"}))
    hosts = hosts_of(env_file, monitoring_host="watcher@watch:2222")
    watching = inventory.of_hosts([data for _, data in hosts]).monitoring
    assert watching is not None
    assert (watching.hostname, watching.user, watching.port, watching.sudo) == (
        "watch",
        "watcher",
        2222,
        True,
    )


def test_a_monitoring_host_among_the_servers_is_found_whatever_its_user(
    capsys: pytest.CaptureFixture[str], env_file: Path
) -> None:
    env_file.write_text(env_text(changes={"STATSD": "10.1.0.20:8125"}))
    line = refusal(capsys, env_file, ssh_hosts=("a", "b", "c"), monitoring_host="me@b:2222")
    assert "monitoring_host: expected " in line
