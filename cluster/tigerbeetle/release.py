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
from cluster.config import Cluster
from cluster.config.env_file import record
from cluster.refusal import Refusal
from cluster.tigerbeetle import binary

_TIMEOUT_S = 60
_CHUNK_BYTES = 1024**2
#: The release zip is about 15 MB; ten times that is not one.
SIZE_MAX_BYTES = 150 * 1024**2
MEMBER = "tigerbeetle"


def url_of(cluster: Cluster, machine: str) -> str:
    """Where the release zip for ``x86_64`` or ``aarch64`` is."""
    return f"{cluster.download_url}/{cluster.release}/tigerbeetle-{machine}-linux.zip"


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
    except urllib.error.HTTPError as error:
        raise _not_had(url, f"HTTP {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _not_had(url, str(error)) from None
    if len(body) < announced:
        raise _not_had(url, f"{len(body)} of {announced} bytes")
    if len(body) > SIZE_MAX_BYTES:
        raise _not_had(url, f"more than {SIZE_MAX_BYTES} bytes")
    return body


def check_sum(body: bytes, recorded: str, url: str) -> str:
    """The sha256 of ``body``; it equals ``recorded``, or Refusal is raised."""
    found = hashlib.sha256(body).hexdigest()
    if found != recorded:
        raise Refusal(
            f"{url}: expected sha256 {recorded}, found {found}. "
            "Fix: do not use this file; if the release itself was changed on purpose, empty "
            "the recorded sum in env/tigerbittle.env and run `make pin`"
        )
    return found


def install(body: bytes, target: Path) -> None:
    """Unpack the server from the zip to ``target``, executable, whole or not at all."""
    try:
        with zipfile.ZipFile(BytesIO(body)) as archive:
            program = archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Refusal(
            f"release: expected a zip that holds {MEMBER}, found {error}. "
            f"Fix: correct {config.PREFIX}DOWNLOAD_URL"
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(target)


def download(cluster: Cluster) -> Path:
    """Fetch, check and install the pinned release; return where. Raises Refusal."""
    machine = this_machine()
    recorded = cluster.sha256_of(machine)
    if not recorded:
        raise Refusal(
            f"{_variable(machine)}: expected a recorded checksum, found nothing. "
            "Fix: run `make pin` once, over a connection you trust, and commit what it records"
        )
    url = url_of(cluster, machine)
    body = fetch(url)
    check_sum(body, recorded, url)
    target = binary.download_path(cluster)
    install(body, target)
    return target


def pin(cluster: Cluster, env_file: Path) -> tuple[str, str]:
    """Record the release's sum if there is none, else check it; (variable, sum)."""
    machine = this_machine()
    url = url_of(cluster, machine)
    body = fetch(url)
    recorded = cluster.sha256_of(machine)
    if recorded:
        return _variable(machine), check_sum(body, recorded, url)
    install(body, binary.download_path(cluster))  # what is recorded is at least a server
    found = hashlib.sha256(body).hexdigest()
    record(env_file, _variable(machine), found)
    return _variable(machine), found


def _variable(machine: str) -> str:
    return f"{config.PREFIX}SHA256_{machine.upper()}"


def _not_had(url: str, found: str) -> Refusal:
    return Refusal(
        f"{url}: expected the release zip, found {found}. Fix: check the network, "
        f"{config.PREFIX}RELEASE and {config.PREFIX}DOWNLOAD_URL"
    )


_env_file = click.option("--env-file", type=Path, default=config.ENV_FILE, help="To read or write.")


@click.command()
@_env_file
def download_(env_file: Path) -> None:
    """Download the pinned release, and check it against its recorded sum."""
    cluster = config.load(env_file)
    print(f"tigerbeetle {cluster.release}: {download(cluster)}")


@click.command()
@_env_file
def pin_(env_file: Path) -> None:
    """Record the checksum of the release on first use; enforced from then on."""
    variable, sha256 = pin(config.load(env_file), env_file)
    print(f"{variable}={sha256}")
