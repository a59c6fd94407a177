"""A release is downloaded only when it is the recorded one; the record is made once, by pin."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cluster import config
from cluster.config import ENV_FILE, PREFIX
from cluster.tigerbeetle import binary
from tests.web import serving

SERVER = b"#!/bin/sh\necho TigerBeetle version 0.17.9\n"
MACHINE = platform.machine()
VARIABLE = f"{PREFIX}SHA256_{MACHINE.upper()}"
PAGE = f"/0.17.9/tigerbeetle-{MACHINE}-linux.zip"


def zipped(name: str = "tigerbeetle") -> bytes:
    """The same bytes at every call: a ZipInfo of its own carries no time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), SERVER)
    return buffer.getvalue()


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    copy = tmp_path / "tigerbittle.env"
    copy.write_text(ENV_FILE.read_text())
    return copy


def run(action: str, env_file: Path, url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The program as make calls it, against a server of this test."""
    return subprocess.run(
        [sys.executable, "-m", "cluster", action, "--env-file", str(env_file)],
        env=os.environ
        | {f"{PREFIX}DOWNLOAD_URL": url, f"{PREFIX}DATA_DIR": str(env_file.parent / "state")}
        | {f"{PREFIX}{key}": value for key, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=60,
    )


def installed(env_file: Path) -> Path:
    return env_file.parent / "state" / "releases" / "0.17.9" / "tigerbeetle"


def sum_variable(sha256: str) -> dict[str, str]:
    return {VARIABLE.removeprefix(PREFIX): sha256}


def test_the_right_sum_installs_a_server_that_runs(env_file: Path) -> None:
    body = zipped()
    with serving({PAGE: body}) as url:
        done = run("download", env_file, url, **sum_variable(hashlib.sha256(body).hexdigest()))
    assert done.returncode == 0, done.stderr
    assert binary.release_of([str(installed(env_file))]) == "0.17.9"


def test_a_wrong_sum_is_refused_and_nothing_installed(env_file: Path) -> None:
    with serving({PAGE: zipped()}) as url:
        done = run("download", env_file, url, **sum_variable("0" * 64))
    assert done.returncode == 2
    assert (
        f"expected sha256 {'0' * 64}, found {hashlib.sha256(zipped()).hexdigest()}" in done.stderr
    )
    assert not installed(env_file).exists()


def test_a_truncated_file_is_refused(env_file: Path) -> None:
    with serving({PAGE: zipped()}, cut_after=50) as url:
        done = run("download", env_file, url, **sum_variable("0" * 64))
    assert done.returncode == 2
    assert f"found 50 of {len(zipped())} bytes" in done.stderr
    assert not installed(env_file).exists()


def test_a_missing_file_is_refused_with_its_address(env_file: Path) -> None:
    with serving({}) as url:
        done = run("download", env_file, url, **sum_variable("0" * 64))
    assert done.returncode == 2
    assert f"{url}{PAGE}: expected the release zip, found HTTP 404" in done.stderr


def test_an_address_without_a_server_is_refused(env_file: Path) -> None:
    done = run("download", env_file, "http://127.0.0.1:1", **sum_variable("0" * 64))
    assert done.returncode == 2
    assert "Connection refused" in done.stderr


def test_without_a_recorded_sum_nothing_is_downloaded(env_file: Path) -> None:
    with serving({PAGE: zipped()}) as url:
        done = run("download", env_file, url)
    assert done.returncode == 2
    assert f"{VARIABLE}: expected a recorded checksum, found nothing" in done.stderr
    assert "make pin" in done.stderr


def test_pin_records_the_sum_once_and_changes_nothing_else(env_file: Path) -> None:
    with serving({PAGE: zipped()}) as url:
        assert run("pin", env_file, url).returncode == 0
        recorded = f"{VARIABLE}={hashlib.sha256(zipped()).hexdigest()}"
        expected = ENV_FILE.read_text().replace(f"{VARIABLE}=", recorded)
        assert env_file.read_text() == expected
        assert run("pin", env_file, url).returncode == 0
        assert env_file.read_text() == expected


def test_pin_refuses_another_file_than_the_recorded_one(env_file: Path) -> None:
    with serving({PAGE: zipped()}) as url:
        assert run("pin", env_file, url).returncode == 0
    before = env_file.read_text()
    with serving({PAGE: zipped() + b"\0"}) as url:
        done = run("pin", env_file, url)
    assert done.returncode == 2
    assert "expected sha256" in done.stderr
    assert env_file.read_text() == before


@pytest.mark.parametrize("body", [b"not a zip", zipped("README.md")], ids=["no-zip", "no-server"])
def test_pin_records_nothing_that_holds_no_server(env_file: Path, body: bytes) -> None:
    with serving({PAGE: body}) as url:
        done = run("pin", env_file, url)
    assert done.returncode == 2
    assert "expected a zip that holds tigerbeetle" in done.stderr
    assert env_file.read_text() == ENV_FILE.read_text()


def test_no_checksum_or_digest_was_made_up() -> None:
    """The official sums are not known beforehand: each is empty until pin has seen the file."""
    committed = config.read(ENV_FILE, {})
    for variable in ("SHA256_X86_64", "SHA256_AARCH64", "IMAGE_DIGEST"):
        assert committed[f"{PREFIX}{variable}"] == ""
