"""What is configured, as frozen objects: a ``Cluster`` of ordered ``Replica``. Pure.

Each field says in ``description`` what is expected of it, in the words of an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, field_validator

PREFIX = "LU_CFG_TIGERBEETLE_"

#: The name of our own emulator's image: it never carries the official one's.
EMULATOR_IMAGE = "tigerbeetle-emulator"

#: Resident memory of a replica without its grid cache, measured on 0.17.9 (2.19 GB with 64 MiB).
MEMORY_BASE_BYTES = 2_130 * 1024**2

#: A number as the server reads one: it refuses a leading zero. Python's \d is any script's digit.
_NUMBER = r"(0|[1-9][0-9]*)"
_SIZE = re.compile(rf"{_NUMBER}(KiB|MiB|GiB)")
_SIZE_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
#: As Docker takes one: no empty component, separators one at a time.
_IMAGE = "[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"


def socket_address(text: str) -> tuple[IPv4Address, int]:
    """``IP:PORT``, the form that TigerBeetle takes. Raises ValueError for anything else."""
    ip, _, port = text.rpartition(":")
    if str(int(port)) != port or not 0 < int(port) < 65536:
        raise ValueError(text)
    return IPv4Address(ip), int(port)


def _statsd(text: str) -> str:
    try:
        return text and ":".join(map(str, socket_address(text)))
    except ValueError:
        raise ValueError("nothing, or IP:PORT: TigerBeetle resolves no host names") from None


def _directory(text: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError("a directory below a home that there is") from None


ReleaseText = Annotated[str, Field(pattern=rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}$")]
SizeText = Annotated[str, Field(pattern=rf"^{_SIZE.pattern}$")]
Sha256 = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{64})?$",
        description="nothing, or 64 hexadecimal digits as recorded by `make pin`",
    ),
]


class _AsWritten(BaseModel, frozen=True):
    """Compose, systemd and the server get a value's text, and read it more strictly than Python."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _one_way(cls, given: object, read: Callable[[object], object]) -> object:
        value = read(given)
        if isinstance(given, str) and not isinstance(value, str) and str(value) != given:
            raise ValueError(f"{value}, as everything else reads it")
        return value


class Replica(_AsWritten, frozen=True):
    """One member of the cluster. Its index is its place in every address list."""

    index: int
    name: str = Field(
        alias="CONTAINER_NAME",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$",
        description="a container name of two or more letters, digits, '_', '.' and '-'",
    )
    ip: IPv4Address = Field(alias="IP", description="an IPv4 address such as 172.20.0.10")
    port: int = Field(alias="PORT", ge=1, le=65535, description="a port from 1 to 65535")

    @property
    def address(self) -> str:
        """``IP:PORT``, the form TigerBeetle takes: it resolves no host names."""
        return f"{self.ip}:{self.port}"


class Cluster(_AsWritten, frozen=True):
    """A whole cluster: identity, ordered replicas, release and settings. Frozen once validated."""

    replicas: tuple[Replica, ...]
    id: int = Field(
        alias="CLUSTER_ID", ge=0, lt=2**128, description="a whole number from 0 to 2^128 - 1"
    )
    token: str = Field(
        alias="AUTH_TOKEN", min_length=1, repr=False, description="a token that is not empty"
    )
    subnet: IPv4Network = Field(
        alias="SUBNET", description="an IPv4 network such as 172.20.0.0/24, host bits zero"
    )
    release: ReleaseText = Field(alias="RELEASE", description="a release such as 0.17.9")
    image: str = Field(
        alias="IMAGE",
        pattern=rf"^([a-zA-Z0-9.-]+(:[0-9]+)?/)?{_IMAGE}(/{_IMAGE})*$",
        description="an image name without a tag",
    )
    image_digest: str = Field(
        alias="IMAGE_DIGEST",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        description="nothing, or 'sha256:' and 64 hexadecimal digits as recorded by `make pin`",
    )
    custom_image: str = Field(
        alias="CUSTOM_IMAGE",
        pattern=rf"^{_IMAGE}(/{_IMAGE})*$",
        description="the name of the image that is built here, without a tag",
    )
    download_url: str = Field(
        alias="DOWNLOAD_URL",
        pattern=r"^https?://\S+$",
        description="the http(s) address under which <release>/<file>.zip is found",
    )
    sha256_x86_64: Sha256 = Field(alias="SHA256_X86_64")
    sha256_aarch64: Sha256 = Field(alias="SHA256_AARCH64")
    cache_grid: SizeText = Field(alias="CACHE_GRID", description="a size such as 512MiB or 1GiB")
    memory_limit: SizeText = Field(
        alias="MEMORY_LIMIT", description="a size such as 3GiB or 3584MiB"
    )
    memlock: int = Field(
        alias="MEMLOCK", ge=-1, description="a number of bytes, or -1 for unlimited"
    )
    seccomp: str = Field(
        alias="SECCOMP",
        pattern=r"^(unconfined|[^\s=]+\.json)$",
        description="the file of a seccomp profile, files/tigerbeetle/seccomp.json, or unconfined",
    )
    bind: IPv4Address = Field(alias="BIND", description="an IPv4 address such as 127.0.0.1")
    data_dir: Annotated[str, AfterValidator(_directory)] = Field(
        alias="DATA_DIR", pattern=r"^[^\x00-\x1f]+$", description="a directory"
    )
    statsd: Annotated[str, AfterValidator(_statsd)] = Field(alias="STATSD")
    #: After 17 s replicas give up their connections.
    freeze_limit_s: int = Field(
        default=5, alias="FREEZE_LIMIT_S", ge=1, le=15, description="whole seconds from 1 to 15"
    )

    @property
    def is_emulator_image(self) -> bool:
        """True when containers are built from our emulator: it has an image name of its own."""
        return self.image.rpartition("/")[2] == EMULATOR_IMAGE

    @property
    def addresses(self) -> str:
        """All replicas as TigerBeetle's ``--addresses`` takes them, in replica order."""
        return addresses(self.replicas)

    def on_loopback(self) -> Cluster:
        """The same replicas at 127.0.0.1: as processes here, or behind ports published here."""
        return self._at(IPv4Address("127.0.0.1"), IPv4Network("127.0.0.0/8"))

    def as_published(self) -> Cluster:
        """The same replicas where containers' ports are published on this machine."""
        if self.bind.is_unspecified:
            return self.on_loopback()
        return self._at(self.bind, IPv4Network(f"{self.bind}/32"))

    def _at(self, ip: IPv4Address, subnet: IPv4Network) -> Cluster:
        replicas = tuple(r.model_copy(update={"ip": ip}) for r in self.replicas)
        return self.model_copy(update={"replicas": replicas, "subnet": subnet})

    def sha256_of(self, machine: str) -> str:
        """The recorded checksum of the release zip for ``x86_64`` or ``aarch64``; '' if none."""
        return {"x86_64": self.sha256_x86_64, "aarch64": self.sha256_aarch64}[machine]


def addresses(replicas: Iterable[Replica]) -> str:
    """``IP:PORT,IP:PORT,...``: as TigerBeetle's servers and clients take them."""
    return ",".join(replica.address for replica in replicas)


def size_bytes(size: str) -> int:
    """Bytes in a size such as ``512MiB``. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"not a size such as 512MiB: {size!r}")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def held_bytes(arguments: str) -> int | None:
    """What a server that was started with these takes, all of it from its start on."""
    grid = re.search(rf"--cache-grid={_SIZE.pattern}", arguments)
    return grid and MEMORY_BASE_BYTES + int(grid[1]) * _SIZE_UNITS[grid[2]]


def memory_bytes(cluster: Cluster) -> int:
    """What one genuine replica of this cluster really takes, resident, from its start on."""
    return MEMORY_BASE_BYTES + size_bytes(cluster.cache_grid)
