"""A private env file: secrets of its own, for its owner alone, and never over another one."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from cluster import REPOSITORY, config
from cluster.config import ENV_FILE, PREFIX, env_file, rules
from cluster.refusal import Refusal

EXAMPLE = ENV_FILE.read_text()
THREE = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
SIX = (*THREE, "10.0.1.14", "10.0.1.15", "10.0.1.16")


def init_env(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    return subprocess.run(
        [sys.executable, "-m", "cluster", "init-env", "--out", str(out), *arguments],
        cwd=REPOSITORY,
        env=environ,
        text=True,
        capture_output=True,
        timeout=60,
    )


def values(path: Path) -> dict[str, str]:
    """The file by python-dotenv alone."""
    return {key: value or "" for key, value in dotenv_values(path, interpolate=False).items()}


@pytest.mark.parametrize("hosts", [(), THREE[:1], THREE, SIX], ids=len)
def test_it_differs_from_the_example_in_identity_and_places_alone(
    tmp_path: Path, hosts: tuple[str, ...]
) -> None:
    done = init_env(tmp_path / "p.env", *hosts)
    assert done.returncode == 0, done.stderr
    written, example = values(tmp_path / "p.env"), values(ENV_FILE)
    places = re.compile(rf"{PREFIX}(\d+_\w+|ADDRESSES|SUBNET)")
    differing = {k for k in written | example if written.get(k) != example.get(k)}
    identity = {f"{PREFIX}CLUSTER_ID", f"{PREFIX}AUTH_TOKEN", "BACKUP_PASSWORD_FILE"}
    assert identity <= differing
    assert all(places.fullmatch(k) for k in differing - identity)
    assert bool(differing - identity) == bool(hosts)


def test_its_hosts_are_the_replicas_in_order(tmp_path: Path) -> None:
    assert init_env(tmp_path / "p.env", "--port", "3100", *SIX).returncode == 0
    written = values(tmp_path / "p.env")
    assert [written[f"{PREFIX}{i}_IP"] for i in range(6)] == list(SIX)
    assert {written[f"{PREFIX}{i}_PORT"] for i in range(6)} == {"3100"}
    assert written[f"{PREFIX}ADDRESSES"] == ",".join(f"{ip}:3100" for ip in SIX)
    assert written[f"{PREFIX}SUBNET"] == "10.0.0.0/23"


def test_production_accepts_what_it_writes(tmp_path: Path) -> None:
    assert init_env(tmp_path / "p.env", *THREE).returncode == 0
    loaded = config.load(
        tmp_path / "p.env", {}, lambda c: rules.check_servers(c, is_development=False)
    )
    assert 0 < loaded.id < 2**128
    assert loaded.token != rules.DEFAULT_TOKEN


def test_the_password_of_its_repository_is_beside_it_for_its_owner_alone(tmp_path: Path) -> None:
    done = init_env(tmp_path / "p.env", *THREE)
    password = tmp_path / "p.backup-password"
    assert values(tmp_path / "p.env")["BACKUP_PASSWORD_FILE"] == str(password)
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert len(password.read_text().strip()) >= 32
    assert password.read_text().strip() not in (tmp_path / "p.env").read_text() + done.stdout
    assert "without it nobody restores them" in done.stdout
    assert "keep a copy elsewhere, apart from the repository" in done.stdout


def test_a_password_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "p.backup-password").write_text("of a repository")
    refused = init_env(tmp_path / "p.env")
    assert refused.returncode == 2
    assert "found one, which a repository may have. Fix: keep it, or name another" in refused.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["p.backup-password"]
    assert (tmp_path / "p.backup-password").read_text() == "of a repository"


def test_an_env_file_that_is_there_gets_no_password(tmp_path: Path) -> None:
    (tmp_path / "p.env").write_text("")
    assert init_env(tmp_path / "p.env").returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["p.env"]


def test_only_its_owner_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert init_env(tmp_path / "p.env").returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "p.env").stat().st_mode) == 0o600


def test_neither_secret_is_printed_but_the_id(tmp_path: Path) -> None:
    done = init_env(tmp_path / "p.env")
    written = values(tmp_path / "p.env")
    assert written[f"{PREFIX}CLUSTER_ID"] in done.stdout
    assert written[f"{PREFIX}AUTH_TOKEN"] not in done.stdout + done.stderr


def test_no_two_files_share_an_id_or_a_token() -> None:
    texts = [env_file.private(EXAMPLE) for _ in range(50)]
    for variable in ("CLUSTER_ID", "AUTH_TOKEN"):
        found = [m[1] for t in texts if (m := re.search(rf"^{PREFIX}{variable}=(.*)$", t, re.M))]
        assert len(set(found)) == 50


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "p.env").write_text("mine")
    done = init_env(tmp_path / "p.env", *THREE)
    assert done.returncode == 2
    assert "expected no file there, found one" in done.stderr
    assert (tmp_path / "p.env").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (THREE[:2], "expected 1, 3 or 6 replicas"),
        (("db0.example.com",), "TigerBeetle resolves no host names, found db0.example.com"),
        ((*THREE[:2], THREE[0]), "expected a host of its own for each replica"),
        (("127.0.0.1",), "expected the address of a server"),
        (("--port", "0", *THREE), "a port from 1 to 65535"),
    ],
)
def test_bad_hosts_are_refused_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = init_env(tmp_path / "p.env", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "p.env").exists()


def test_a_path_that_git_would_commit_is_refused() -> None:
    done = init_env(Path("env/tracked.env"))
    assert done.returncode == 2
    assert "expected a path that git ignores" in done.stderr
    assert not (REPOSITORY / "env" / "tracked.env").exists()


@pytest.mark.parametrize("name", [env_file.DEFAULT, "env/production-eu.env", "env/mine.local.env"])
def test_git_ignores_where_private_files_go(name: str) -> None:
    asked = subprocess.run(["git", "check-ignore", "--quiet", name], cwd=REPOSITORY)
    assert asked.returncode == 0


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_the_network_holds_all_hosts_and_no_half_of_it_does(numbers: set[int]) -> None:
    hosts = [IPv4Address(number) for number in numbers]
    network = env_file.smallest_network(hosts)
    assert all(host in network for host in hosts)
    if network.prefixlen < 32:
        halves = network.subnets()
        assert not any(all(host in half for host in hosts) for half in halves)


def test_recording_keeps_every_other_byte_and_the_mode(tmp_path: Path) -> None:
    file = tmp_path / "p.env"
    file.write_text("# a\nA=1\nB=\n\nC=3")
    file.chmod(0o600)
    env_file.record(file, "B", r"\1 g<0>")
    assert file.read_text() == "# a\nA=1\nB=\\1 g<0>\n\nC=3"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_the_line_to_record_must_be_there_once(tmp_path: Path) -> None:
    file = tmp_path / "p.env"
    file.write_text("A=1\n")
    with pytest.raises(Refusal, match="expected one line B=, found 0"):
        env_file.record(file, "B", "2")
    assert file.read_text() == "A=1\n"


def test_an_env_file_that_is_no_utf_8_is_not_written_to(tmp_path: Path) -> None:
    """It was a traceback, of `make pin` and of `make init-env`."""
    (tmp_path / "x.env").write_bytes(b"# \xff\nA=\n")
    with pytest.raises(Refusal, match=r"x\.env: expected a readable file of KEY=value lines"):
        env_file.record(tmp_path / "x.env", "A", "1")
    assert (tmp_path / "x.env").read_bytes() == b"# \xff\nA=\n"
