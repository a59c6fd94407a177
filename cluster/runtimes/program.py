"""The server program that servers are given: which file that is, and what it must be.

The pinned release as downloaded and checked, once its checksum is recorded; until then the file
that a person names. A server never downloads anything itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import REPOSITORY, pyz
from cluster.config import PREFIX, kept
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import image
from cluster.tigerbeetle import binary

#: ELF's e_machine, two bytes at offset 18, and what `uname -m` calls it.
_ELF_MACHINES = {0x3E: "x86_64", 0xB7: "aarch64"}


@dataclass(frozen=True)
class Program:
    """A file to be shipped, and its fingerprint. ``machine`` is empty where any will do."""

    path: Path
    sha256: str
    machine: str


def to_ship(deployment: Deployment, environ: Mapping[str, str] = os.environ) -> Program:
    """The file to install on the servers; its release is checked. Raises Refusal."""
    if deployment.engine == "emulator":
        path = _emulator(deployment)
    else:
        path = _tigerbeetle(deployment, environ)
        binary.check_release(binary.release_of([str(path)]), deployment.cluster)
    content = path.read_bytes()
    return Program(path, hashlib.sha256(content).hexdigest(), machine_of(content))


def reader(deployment: Deployment, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The argument list that reads superblocks on this machine, without a server's help.

    Raises Refusal where this machine has neither program nor image.
    """
    if deployment.engine == "emulator" or binary.find_tigerbeetle(deployment.cluster, environ):
        return binary.command(deployment, environ)
    if deployment.runtime == "docker":
        here = deployment.state_dir
        seccomp = REPOSITORY / "files" / "tigerbeetle" / "seccomp.json"
        return [
            *("docker", "run", "--rm", "--network=none", "--user=0"),
            *(f"--volume={here}:{here}:ro", f"--security-opt=seccomp={seccomp}"),
            *("--entrypoint=/tigerbeetle", image.name(deployment.cluster)),
        ]
    return binary.command(deployment, environ)


def machine_of(content: bytes) -> str:
    """``x86_64`` or ``aarch64`` for a Linux program; empty for a script. Raises Refusal."""
    if content[:2] == b"#!":
        return ""
    machine = _ELF_MACHINES.get(int.from_bytes(content[18:20], "little"))
    if content[:4] != b"\x7fELF" or machine is None:
        raise Refusal(
            "tigerbeetle: expected a Linux program for x86_64 or aarch64, found another file. "
            "Fix: name the server in TIGERBEETLE_BIN"
        )
    return machine


def _tigerbeetle(deployment: Deployment, environ: Mapping[str, str]) -> Path:
    cluster = deployment.cluster
    downloaded = binary.download_path(cluster)
    if not (cluster.sha256_x86_64 or cluster.sha256_aarch64):
        return Path(binary.command(deployment, environ)[0])
    if environ.get("TIGERBEETLE_BIN"):
        raise Refusal(
            f"TIGERBEETLE_BIN: expected none, since {PREFIX}SHA256_* records the release to use, "
            f"found {environ['TIGERBEETLE_BIN']}. Fix: unset it, or empty the recorded sums"
        )
    if not downloaded.is_file():
        raise Refusal(
            f"tigerbeetle: expected the recorded release at {downloaded}, found none. "
            "Fix: make download"
        )
    return downloaded


def _emulator(deployment: Deployment) -> Path:
    """The emulator as one file that any Python 3.11 runs."""
    path = deployment.state_dir / "tigerbeetle-emulator"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = pyz.sources(REPOSITORY, "tigerbeetle_emulator")
    return kept.write(path, pyz.pack("tigerbeetle_emulator.__main__", sources), mode=0o755)
