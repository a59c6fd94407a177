"""Places for a repository, with servers of a test's own: a directory, SFTP and S3."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.tigerbeetle.waiting import wait_until
from tests.leases import free_ports

PASSWORD = "correct horse 7 battery"
KEYS = {"AWS_ACCESS_KEY_ID": "an-id-of-s3", "AWS_SECRET_ACCESS_KEY": "a-secret-of-s3"}
_UP_TIMEOUT_S = 120

needs_restic = pytest.mark.skipif(
    shutil.which("restic") is None, reason="no restic on PATH: apt-get install restic"
)


def password_file(directory: Path, password: str = PASSWORD) -> Path:
    """A file with the password, its owner's alone."""
    made = directory / "backup-password"
    made.write_text(f"{password}\n")
    made.chmod(0o600)
    return made


@contextmanager
def directory(place: Path) -> Iterator[dict[str, str]]:
    """The variables of a repository in a directory that is not there yet."""
    yield {"BACKUP_TO": str(place / "repository")}


@contextmanager
def sftp(place: Path, address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Debian's own sshd, which knows one key, ``user``, and no shell."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None:
        pytest.skip("no sshd: apt-get install openssh-server")
    (port,) = free_ports(1)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name],
            check=True,
            timeout=60,
        )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {place}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {place}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        "Subsystem sftp internal-sftp\nForceCommand internal-sftp\n"
    )
    (place / "ssh_config").write_text(
        f"IdentityFile {place}/user\nIdentitiesOnly yes\nUserKnownHostsFile {place}/known\n"
        "StrictHostKeyChecking accept-new\n"
    )
    programs = place / "programs"
    programs.mkdir()
    for name in ("ssh", "sftp"):  # as root's own ssh_config on a server
        (programs / name).write_text(
            f'#!/bin/sh\nexec {shutil.which(name)} -F {place}/ssh_config "$@"\n'
        )
        (programs / name).chmod(0o755)
    log = ["-E", str(place / "sshd.log")]
    with _running([server, "-D", "-f", str(place / "sshd_config"), *log], port, address):
        yield {
            "BACKUP_TO": f"sftp://{getpass.getuser()}@{address}:{port}/{place}/repository",
            "PATH": f"{programs}:{os.environ['PATH']}",
        }


@contextmanager
def s3(place: Path) -> Iterator[dict[str, str]]:
    """moto's server, which keeps its buckets in memory."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("no S3 server: .uv/*/uv sync --locked --all-extras --group s3")
    (port,) = free_ports(1)
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(server, port):
        yield {"BACKUP_TO": f"s3:http://127.0.0.1:{port}/backups/wallets", **KEYS}


@contextmanager
def _running(command: list[str], port: int, address: str = "127.0.0.1") -> Iterator[None]:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:

        def answers() -> tuple[bool, str]:
            assert process.poll() is None, f"{command[0]} has ended"
            with socket.socket() as probe:
                return probe.connect_ex((address, port)) == 0, ""

        try:
            wait_until(answers, what=f"{command[0]} to listen", timeout_s=_UP_TIMEOUT_S)
            yield
        finally:
            process.terminate()
