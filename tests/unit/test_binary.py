"""The server is found where the user says, and must be the configured release."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import config
from cluster.refusal import Refusal
from cluster.tigerbeetle import binary

CLUSTER = config.parse(config.read(config.ENV_FILE, {})).model_copy(update={"data_dir": "absent"})


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A program that says it is TigerBeetle 0.17.9."""
    return program(tmp_path / "tigerbeetle", "echo TigerBeetle version 0.17.9+52ad553")


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_tigerbeetle_bin_wins_over_path(server: Path, tmp_path: Path) -> None:
    other = tmp_path / "bin"
    other.mkdir()
    program(other / "tigerbeetle", "exit 1")
    environ = {"TIGERBEETLE_BIN": str(server), "PATH": str(other)}
    assert binary.find_tigerbeetle(CLUSTER, environ) == server


def test_path_is_searched(server: Path) -> None:
    assert binary.find_tigerbeetle(CLUSTER, {"PATH": str(server.parent)}) == server


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert binary.find_tigerbeetle(CLUSTER, {"PATH": str(tmp_path)}) is None


@pytest.mark.parametrize("kind", ["absent", "directory", "plain file"])
def test_tigerbeetle_bin_must_be_a_program(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "plain file":
        path.write_text("")
    with pytest.raises(Refusal, match="TIGERBEETLE_BIN: expected an executable file"):
        binary.find_tigerbeetle(CLUSTER, {"TIGERBEETLE_BIN": str(path)})


def test_the_release_is_what_the_server_says(server: Path) -> None:
    assert binary.release_of([str(server)]) == "0.17.9"


@pytest.mark.parametrize(
    ("body", "says"), [("echo hello", "found 'hello'"), ("exit 1", "found ''")]
)
def test_a_program_without_a_version_is_no_server(tmp_path: Path, body: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        binary.release_of([str(program(tmp_path / "x", body))])


def test_an_emulator_is_a_server_only_where_one_is_meant(tmp_path: Path) -> None:
    emulator = [str(program(tmp_path / "x", "echo TigerBeetle EMULATOR version 0.17.9"))]
    assert binary.release_of(emulator, "emulator") == "0.17.9"
    with pytest.raises(Refusal, match="expected the genuine server, found the emulator"):
        binary.release_of(emulator, "tigerbeetle")


def test_the_configured_release_with_its_client_is_right() -> None:
    binary.check_release("0.17.9", CLUSTER, client_release="0.17.9")
    binary.check_release("0.17.9", CLUSTER, client_release="0.16.78")


def test_another_release_than_the_configured_one_is_refused() -> None:
    with pytest.raises(Refusal, match=r"expected the server to be 0\.17\.9, found 0\.17\.8"):
        binary.check_release("0.17.8", CLUSTER, client_release="0.17.8")


def test_a_client_newer_than_the_server_is_refused() -> None:
    with pytest.raises(Refusal, match="upgrade the replicas first"):
        binary.check_release("0.17.9", CLUSTER, client_release="0.17.10")
