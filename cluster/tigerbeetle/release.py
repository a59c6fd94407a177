"""The pinned TigerBeetle release as a download: fetched when asked, checked against its sum.

``make pin`` records the sha256 of what was really downloaded, once, in env/tigerbittle.env; from
then on every download must match it. No sum is known beforehand, and none is made up.
"""

from __future__ import annotations

import hashlib
import http.client
import platform
import urllib.error
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

import click

from cluster import config
from cluster.config import Cluster, kept
from cluster.config.env_file import record
from cluster.refusal import Refusal
from cluster.tigerbeetle import binary

_TIMEOUT_S = 60
#: The release zip is about 15 MB; ten times that is not one.
SIZE_MAX_BYTES = 150 * 1024**2
MEMBER = "tigerbeetle"


def this_machine() -> str:
    """``x86_64`` or ``aarch64``. Raises Refusal elsewhere."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ("x86_64", "aarch64"):
        raise Refusal(
            f"release: expected Linux on x86_64 or aarch64, found {platform.system()} {machine}. "
            "Fix: install tigerbeetle yourself and name it in TIGERBEETLE_BIN"
        )
    return machine


def fetch(url: str) -> bytes:
    """The file at ``url``, whole. Raises Refusal for anything less."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - http(s)
            body: bytes = response.read(SIZE_MAX_BYTES + 1)
            announced = int(response.headers.get("Content-Length") or len(body))
        if announced <= len(body) <= SIZE_MAX_BYTES:
            return body
        found = f"{len(body)} of {announced} bytes (at most {SIZE_MAX_BYTES} are taken)"
    except urllib.error.HTTPError as error:
        found = f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        found = str(error)
    raise Refusal(
        f"{url}: expected the release zip, found {found}. Fix: check the network, "
        f"{config.PREFIX}RELEASE and {config.PREFIX}DOWNLOAD_URL"
    )


def fetch_release(cluster: Cluster, machine: str) -> tuple[bytes, str]:
    """The release zip for ``machine`` and its sha256: the recorded one, if any. Raises Refusal."""
    url = f"{cluster.download_url}/{cluster.release}/tigerbeetle-{machine}-linux.zip"
    body, recorded = fetch(url), cluster.sha256_of(machine)
    found = hashlib.sha256(body).hexdigest()
    if recorded not in ("", found):
        raise Refusal(
            f"{url}: expected sha256 {recorded}, found {found}. "
            "Fix: do not use this file; if the release itself was changed on purpose, empty "
            "the recorded sum in env/tigerbittle.env and run `make pin`"
        )
    return body, found


def install(body: bytes, cluster: Cluster) -> Path:
    """Unpack the server from the zip, executable, whole or not at all; return where."""
    try:
        with zipfile.ZipFile(BytesIO(body)) as archive:
            program = archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Refusal(
            f"release: expected a zip that holds {MEMBER}, found {error}. "
            f"Fix: correct {config.PREFIX}DOWNLOAD_URL"
        ) from None
    target = binary.download_path(cluster)
    target.parent.mkdir(parents=True, exist_ok=True)
    return kept.write(target, program, mode=0o755)


def _variable(machine: str) -> str:
    return f"{config.PREFIX}SHA256_{machine.upper()}"


_env_file = click.option("--env-file", type=Path, default=config.ENV_FILE, help="To read or write.")


@click.command()
@_env_file
def download_(env_file: Path) -> None:
    """Download the pinned release, and check it against its recorded sum."""
    cluster, machine = config.load(env_file), this_machine()
    if not cluster.sha256_of(machine):
        raise Refusal(
            f"{_variable(machine)}: expected a recorded checksum, found nothing. "
            "Fix: run `make pin` once, over a connection you trust, and commit what it records"
        )
    body, _ = fetch_release(cluster, machine)
    print(f"tigerbeetle {cluster.release}: {install(body, cluster)}")


@click.command()
@_env_file
def pin_(env_file: Path) -> None:
    """Record the checksum of the release on first use; enforced from then on."""
    cluster, machine = config.load(env_file), this_machine()
    body, sha256 = fetch_release(cluster, machine)
    if not cluster.sha256_of(machine):
        install(body, cluster)  # what is recorded is at least a server
        record(env_file, _variable(machine), sha256)
    print(f"{_variable(machine)}={sha256}")
