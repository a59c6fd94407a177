"""The one configuration: ``env/tigerbittle.env`` under the process environment, validated.

The result is a frozen ``Cluster``. Whatever is wrong ends in one ``ConfigError``, whose text is one
line: variable, expected, found, fix. Nothing is touched before this has passed.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ENV_FILE = Path(__file__).parent.parent / "env" / "tigerbittle.env"
PREFIX = "LU_CFG_TIGERBEETLE_"
REPLICA_KEY = re.compile(rf"{PREFIX}(\d+)_(CONTAINER_NAME|IP|PORT)")

#: The example token in env/tigerbittle.env: everybody knows it, so production refuses it.
DEFAULT_TOKEN = "CfDj7kdpld7BsUpXzQYiOfLdnateLkdBysPEWnvc"  # noqa: S105 - published, protects nothing

#: The name of our own emulator's image: it never carries the official one's.
EMULATOR_IMAGE = "tigerbeetle-emulator"

#: Odd quorums tolerate a failure with the fewest replicas; TigerBeetle's replicas_max is 6.
REPLICA_COUNTS = (1, 3, 6)
REPLICA_COUNT_ADVICE = {
    2: "2 replicas stop when either fails: use 3",
    4: "4 replicas survive one failure, as 3 do, and commit slower: use 3 or 6",
    5: "5 replicas need the quorums of 6 without its durability: use 3 or 6",
}

#: Resident memory of a replica without its grid cache, measured on 0.17.9 (2.19 GB with 64 MiB).
MEMORY_BASE_BYTES = 2_130 * 1024**2

_SIZE = re.compile(r"(\d+)(KiB|MiB|GiB)")
_SIZE_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

ReleaseText = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
SizeText = Annotated[str, Field(pattern=rf"^{_SIZE.pattern}$")]
Model = TypeVar("Model", bound=BaseModel)
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class ConfigError(Exception):
    """One wrong setting: ``str()`` is one line that names variable, expected, found and fix."""

    def __init__(self, variable: str, *, expected: str, found: object, fix: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: expected {expected}, found {found}. Fix: {fix}.")


class Replica(BaseModel):
    """One member of the cluster. Its index is its place in every address list."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str = Field(
        alias="CONTAINER_NAME",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$",
        description="a container name of letters, digits, '_', '.' and '-'",
    )
    ip: IPv4Address = Field(alias="IP", description="an IPv4 address such as 172.20.0.10")
    port: int = Field(alias="PORT", ge=1, le=65535, description="a port from 1 to 65535")

    @property
    def address(self) -> str:
        """``IP:PORT``, the form TigerBeetle takes: it resolves no host names."""
        return f"{self.ip}:{self.port}"


class Cluster(BaseModel):
    """A whole cluster: identity, ordered replicas, release and settings. Frozen once validated."""

    model_config = ConfigDict(frozen=True)

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
    image: str = Field(alias="IMAGE", min_length=1, description="an image name without a tag")
    image_digest: str = Field(
        alias="IMAGE_DIGEST",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        description="nothing, or 'sha256:' and 64 hexadecimal digits as recorded by `make pin`",
    )
    custom_image: str = Field(
        alias="CUSTOM_IMAGE",
        pattern=r"^[a-z0-9][a-z0-9._/-]*$",
        description="the name of the image that is built here, without a tag",
    )
    download_url: str = Field(
        alias="DOWNLOAD_URL",
        pattern=r"^https?://\S+$",
        description="the http(s) address under which <release>/<file>.zip is found",
    )
    sha256_x86_64: Sha256 = Field(
        alias="SHA256_X86_64",
        description="nothing, or 64 hexadecimal digits as recorded by `make pin`",
    )
    sha256_aarch64: Sha256 = Field(
        alias="SHA256_AARCH64",
        description="nothing, or 64 hexadecimal digits as recorded by `make pin`",
    )
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
    data_dir: str = Field(alias="DATA_DIR", min_length=1, description="a directory")
    statsd: str = Field(
        alias="STATSD",
        pattern=r"^(\d+\.\d+\.\d+\.\d+:\d+)?$",
        description="nothing, or IP:PORT: TigerBeetle resolves no host names",
    )

    @property
    def is_emulator_image(self) -> bool:
        """True when containers are built from our emulator: it has an image name of its own."""
        return self.image.rpartition("/")[2] == EMULATOR_IMAGE

    @property
    def addresses(self) -> str:
        """All replicas as TigerBeetle's ``--addresses`` takes them, in replica order."""
        return ",".join(replica.address for replica in self.replicas)

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


def size_bytes(size: str) -> int:
    """Bytes in a size such as ``512MiB``. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"not a size such as 512MiB: {size!r}")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def memory_bytes(cluster: Cluster) -> int:
    """What one genuine replica of this cluster really takes, resident, from its start on."""
    return MEMORY_BASE_BYTES + size_bytes(cluster.cache_grid)


def read(env_file: Path = ENV_FILE, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Our variables: the file's, under those of the environment, as Compose merges them.

    Raises ConfigError for an unreadable file, and for any name that nobody reads.
    """
    try:
        text = env_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(env_file),
            expected="a readable file of KEY=value lines",
            found=error,
            fix="restore it with `git checkout env/tigerbittle.env`",
        ) from None
    parsed = dotenv_values(stream=io.StringIO(text), interpolate=False)
    in_file = {key: value or "" for key, value in parsed.items()}
    from_environ = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
    for key in (*in_file, *from_environ):
        _refuse_unknown(key, where=str(env_file) if key in in_file else "the environment")
    return {**in_file, **from_environ}


def parse(settings: Mapping[str, str]) -> Cluster:
    """Validate settings into a Cluster. Raises ConfigError for the first rule that is broken."""
    values = {key.removeprefix(PREFIX): value for key, value in settings.items()}
    indexes = sorted({int(m[1]) for key in settings if (m := REPLICA_KEY.fullmatch(key))})
    _check_replica_count(indexes)
    replicas = tuple(
        _build(Replica, f"{PREFIX}{i}_", _with_prefix(values, f"{i}_") | {"index": i})
        for i in indexes
    )
    cluster = _build(Cluster, PREFIX, dict(values) | {"replicas": replicas})
    _check_replicas(cluster)
    _check_addresses(cluster, values.get("ADDRESSES"))
    _check_memory(cluster)
    _check_image(cluster)
    return cluster


def load(env_file: Path = ENV_FILE, environ: Mapping[str, str] = os.environ) -> Cluster:
    """Read and parse. Raises ConfigError."""
    return parse(read(env_file, environ))


def load_or_exit() -> Cluster:
    """For programs: the Cluster, or the one-line error on stderr and exit code 2."""
    try:
        return load()
    except ConfigError as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    """End the program as every command here does on bad input: one line, exit code 2."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def _known_settings() -> Iterator[str]:
    yield f"{PREFIX}ADDRESSES"
    for i in range(max(REPLICA_COUNTS)):
        yield from (f"{PREFIX}{i}_{f.alias}" for f in Replica.model_fields.values() if f.alias)
    yield from (f"{PREFIX}{f.alias}" for f in Cluster.model_fields.values() if f.alias)


def _refuse_unknown(key: str, *, where: str) -> None:
    known = list(_known_settings())
    if key in known or REPLICA_KEY.fullmatch(key):
        return
    near = difflib.get_close_matches(key, known, n=1)
    raise ConfigError(
        key,
        expected=f"a known variable{f' (did you mean {near[0]}?)' if near else ''}",
        found=f"this name in {where}",
        fix="correct the name or remove the line",
    )


def _check_replica_count(indexes: list[int]) -> None:
    found = f"replicas {', '.join(map(str, indexes)) or 'none'}"
    if indexes != list(range(len(indexes))) or not indexes:
        raise ConfigError(
            f"{PREFIX}X_IP",
            expected="replicas numbered 0, 1, 2, ... without a gap",
            found=found,
            fix=f"number the {PREFIX}X_ variables from 0",
        )
    if len(indexes) not in REPLICA_COUNTS:
        advice = REPLICA_COUNT_ADVICE.get(
            len(indexes), "a cluster has at most 6 replicas: use 3 or 6"
        )
        raise ConfigError(f"{PREFIX}X_IP", expected="1, 3 or 6 replicas", found=found, fix=advice)


def _check_replicas(cluster: Cluster) -> None:
    """No two replicas share a name, an IP (each is one host) or a port, and all are inside."""
    for field, suffix in (("name", "CONTAINER_NAME"), ("ip", "IP"), ("port", "PORT")):
        seen: dict[object, int] = {}
        for replica in cluster.replicas:
            value = getattr(replica, field)
            if value in seen:
                raise ConfigError(
                    f"{PREFIX}{replica.index}_{suffix}",
                    expected=f"one that differs from replica {seen[value]}'s",
                    found=f"{value} on both",
                    fix="give each replica its own",
                )
            seen[value] = replica.index
    for replica in cluster.replicas:
        if replica.ip not in cluster.subnet:
            raise ConfigError(
                f"{PREFIX}{replica.index}_IP",
                expected=f"an address inside {cluster.subnet}",
                found=replica.ip,
                fix=f"correct it, or {PREFIX}SUBNET",
            )


def _check_addresses(cluster: Cluster, addresses: str | None) -> None:
    if addresses != cluster.addresses:
        raise ConfigError(
            f"{PREFIX}ADDRESSES",
            expected=f"{cluster.addresses} (IP:PORT of each replica, in order)",
            found=addresses or "nothing",
            fix="write the replicas in order: the position in this list is a replica's identity",
        )


def _check_memory(cluster: Cluster) -> None:
    needed = memory_bytes(cluster)
    if size_bytes(cluster.memory_limit) < needed:
        raise ConfigError(
            f"{PREFIX}MEMORY_LIMIT",
            expected=f"at least {-(-needed // 1024**2)}MiB, what a replica with "
            f"{cluster.cache_grid} of grid cache takes",
            found=cluster.memory_limit,
            fix=f"raise it, or lower {PREFIX}CACHE_GRID",
        )


def _check_image(cluster: Cluster) -> None:
    """Our emulator never runs under a name that could be taken for TigerBeetle's."""
    if cluster.is_emulator_image and "emulator" not in cluster.custom_image:
        raise ConfigError(
            f"{PREFIX}CUSTOM_IMAGE",
            expected=f"a name with 'emulator' in it, since {PREFIX}IMAGE is the emulator's",
            found=cluster.custom_image,
            fix="set it to tigerbeetle-emulator-custom",
        )


def _with_prefix(values: Mapping[str, str], prefix: str) -> dict[str, object]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _build(model: type[Model], prefix: str, values: dict[str, object]) -> Model:
    """Let pydantic validate, and say what it says in our one line."""
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        error = failure.errors()[0]
        alias = str(error["loc"][0])
        field = next(f for f in model.model_fields.values() if f.alias == alias)
        found = "nothing" if error["type"] == "missing" else repr(error["input"])
        raise ConfigError(
            f"{prefix}{alias}",
            expected=str(field.description),
            found=found,
            fix="set it in env/tigerbittle.env",
        ) from None


def main() -> None:
    """Validate the configuration and print what it means; exit code 2 when it is bad."""
    parser = argparse.ArgumentParser(prog="python -m cluster.config", description=main.__doc__)
    parser.add_argument("env_file", nargs="?", type=Path, default=ENV_FILE)
    try:
        cluster = load(parser.parse_args().env_file)
    except ConfigError as error:
        fail(error)
    print(f"cluster {cluster.id}, release {cluster.release}, at {cluster.addresses}")


if __name__ == "__main__":
    main()
