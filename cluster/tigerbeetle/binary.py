"""The server program of a deployment, and the release that it reports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from cluster import REPOSITORY
from cluster.config import Cluster, kept
from cluster.config.deployment import Deployment, Engine
from cluster.refusal import Refusal, decoded
from cluster.tigerbeetle.data_file import Superblock, parse_superblock
from cluster.tigerbeetle.upgrade_path import triple

_VERSION = re.compile(r"version (\d+\.\d+\.\d+)")
_TIMEOUT_S = 20
#: `inspect superblock` reads 96 KiB; it may hang on a damaged file, so it always has a bound.
INSPECT_TIMEOUT_S = 30.0


def download_path(cluster: Cluster) -> Path:
    """Where ``make download`` puts the pinned release."""
    return REPOSITORY / cluster.data_dir / "releases" / cluster.release / "tigerbeetle"


def find_tigerbeetle(cluster: Cluster, environ: Mapping[str, str] = os.environ) -> Path | None:
    """$TIGERBEETLE_BIN, else `tigerbeetle` on PATH, else the downloaded release, else None.

    Raises Refusal when TIGERBEETLE_BIN names something that cannot be run.
    """
    named = environ.get("TIGERBEETLE_BIN")
    if named:
        path = kept.expanded(named)
        if not os.access(path, os.X_OK) or path.is_dir():
            raise Refusal(
                f"TIGERBEETLE_BIN: expected an executable file, found {named}. "
                "Fix: correct the path, or unset it to use `tigerbeetle` from PATH"
            )
        return path.absolute()
    on_path = shutil.which("tigerbeetle", path=environ.get("PATH"))
    if on_path:
        return Path(on_path)
    downloaded = download_path(cluster)
    return downloaded if downloaded.is_file() else None


def command(deployment: Deployment, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The argument list that runs this deployment's server. Raises Refusal."""
    if deployment.is_emulator:
        return [sys.executable, "-m", "tigerbeetle_emulator"]
    found = find_tigerbeetle(deployment.cluster, environ)
    if found is None:
        raise Refusal(
            "tigerbeetle: expected the server in TIGERBEETLE_BIN or on PATH, found none. "
            "Fix: install it, run `make download`, or use INVENTORY=inventories/emulator.py"
        )
    return [str(found)]


def release_of(server: list[str], engine: Engine = "tigerbeetle") -> str:
    """The release that ``<server> version`` prints, such as 0.17.9.

    Raises Refusal, also for an emulator where the genuine engine is meant: its results must
    never be taken for TigerBeetle's.
    """
    said = _version(server)
    if engine == "tigerbeetle" and "EMULATOR" in said:
        raise Refusal(
            f"{server[0]}: expected the genuine server, found the emulator. "
            "Fix: use INVENTORY=inventories/emulator.py for it, which says so everywhere"
        )
    match = _VERSION.search(said)
    if match is None:
        raise Refusal(
            f"{server[0]}: expected 'TigerBeetle version X.Y.Z', found {said.strip()!r}. "
            "Fix: name the tigerbeetle server in TIGERBEETLE_BIN"
        )
    return match[1]


def _version(server: Sequence[str], *options: str) -> str:
    """What ``<server> version`` prints. Raises Refusal."""
    command = [*server, "version", *options]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S)
        return decoded(done).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refusal(
            f"{server[0]}: expected it to print its version, found {error}. Fix: reinstall it"
        ) from None


def inspect(
    server: Sequence[str], path: str | Path, *what: str, timeout_s: float = INSPECT_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """What ``<server> inspect`` says of a data file. Raises TimeoutExpired."""
    command = [*server, "inspect", *what, str(path)]
    return decoded(subprocess.run(command, capture_output=True, timeout=timeout_s))


def superblock(server: Sequence[str], path: str | Path, name: str = "") -> Superblock:
    """Whose file this is, by the server's own reading; errors call it ``name``. Raises Refusal."""
    try:
        done = inspect(server, path, "superblock")
    except subprocess.TimeoutExpired:
        raise Refusal(
            f"{name or path}: expected its superblock within {INSPECT_TIMEOUT_S:g} s, found no "
            "answer. Fix: check the disk; if the others commit, recover its replica from them: "
            "docs/runbooks/corrupted-file.md"
        ) from None
    try:
        return parse_superblock(done.stdout or done.stderr)
    except Refusal as error:
        raise Refusal(f"{name or path}: {error}") from None


def offer(server: Sequence[str], deployment: Deployment) -> str:
    """What ``<server> version --verbose`` prints, of the deployment's release. Raises Refusal."""
    found = release_of([*server], deployment.engine)
    if found != deployment.cluster.release:
        raise Refusal(
            f"TO: expected {server[0]} to be {deployment.cluster.release}, found {found}. "
            "Fix: name the new server in TIGERBEETLE_BIN"
        )
    return _version(server, "--verbose")


def check_release(server_release: str, cluster: Cluster, client_release: str | None = None) -> None:
    """Check that the server is the configured release, and no client here newer. Raises Refusal.

    A server refuses clients newer than itself: upgrade replicas first, clients second.
    """
    if server_release != cluster.release:
        raise Refusal(
            f"LU_CFG_TIGERBEETLE_RELEASE: expected the server to be {cluster.release}, found "
            f"{server_release}. Fix: use that server's release in env/tigerbittle.env, or name "
            "another server in TIGERBEETLE_BIN"
        )
    client = client_release or metadata.version("tigerbeetle")
    if triple(client) > triple(server_release):
        raise Refusal(
            f"tigerbeetle client: expected {server_release} or older, found {client}. "
            "Fix: upgrade the replicas first, then the client"
        )
