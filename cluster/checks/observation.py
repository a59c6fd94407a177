"""What a server is like before anything is changed on it: ``files/tigerbeetle/observe.sh``, read.

Pure, but for ``identify``, which lets the server program on this machine read a superblock.
"""

from __future__ import annotations

import base64
import ipaddress
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster import REPOSITORY
from cluster.refusal import Refusal
from cluster.runtimes import script
from cluster.tigerbeetle import data_file
from cluster.tigerbeetle.data_file import Identity

SCRIPT = REPOSITORY / "files" / "tigerbeetle" / "observe.sh"

#: `inspect` reads 96 KiB; it may hang on a damaged file, so it is never let run without a bound.
INSPECT_TIMEOUT_S = 30
#: Docker's client prints this where there is no container; systemd where nothing runs.
_NO_PID = ("", "0")

Peer = Literal["open", "refused", "silent"]


@dataclass(frozen=True)
class DataFile:
    """A file in the replica's directory: its size, and its first 96 KiB."""

    name: str
    size: int
    head: bytes = field(repr=False)


@dataclass(frozen=True)
class Observation:
    """One server, as it says itself. Empty strings and zeros where it did not say."""

    kernel: str = ""
    machine: str = ""
    io_uring_disabled: str = "0"
    memory_bytes: int = 0  # available
    disk_bytes: int = 0  # free where the data file is, or will be
    filesystem: str = ""
    has_direct_io: bool = False
    systemd: str = ""
    docker: str = ""
    compose: str = ""
    owner: str = ""  # the name of the uid that the replicas have
    addresses: frozenset[str] = frozenset()
    python: str = ""
    settings: str = ""  # fingerprint of those with which the replica runs
    unit_pid: int = 0
    container_pid: int = 0
    listening: frozenset[str] = frozenset()  # addresses, on the replica's port
    holder: str = ""  # of that port, where it can be seen
    peers: Mapping[str, Peer] = field(default_factory=dict)  # by IP:PORT
    is_bootstrapping: bool = False
    data_files: tuple[DataFile, ...] = ()
    is_synchronised: bool = False
    clock_offset_s: float = 0.0  # to this machine's clock


def command(unit: str, directory: str, port: int, peers: Sequence[str]) -> str:
    """The shell line that makes a server print its observation."""
    return script.command(SCRIPT, unit, directory, str(port), *peers)


def parse(lines: Sequence[str], now: float) -> Observation:
    """What the script printed; ``now`` is this machine's time when its last line came."""
    said = script.Printed(lines)
    return Observation(
        kernel=said.one("kernel"),
        machine=said.one("machine"),
        io_uring_disabled=said.one("io_uring_disabled"),
        memory_bytes=int(said.one("memory_kib") or 0) * 1024,
        disk_bytes=int(said.one("disk_kib") or 0) * 1024,
        filesystem=said.one("filesystem"),
        has_direct_io=said.one("direct_io") == "yes",
        systemd=said.one("systemd"),
        docker=said.one("docker"),
        compose=said.one("compose"),
        owner=said.one("owner"),
        addresses=frozenset(values[0] for values in said.each("address")),
        python=said.one("python"),
        settings=said.one("settings"),
        unit_pid=_pid(said.one("unit")),
        container_pid=_pid(said.one("container")),
        listening=frozenset(_address(values[0]) for values in said.each("listening")),
        holder=said.one("holder"),
        peers={values[0]: _peer(values[1]) for values in said.each("peer")},
        is_bootstrapping=said.one("bootstrapping") == "yes",
        data_files=tuple(_data_file(*values) for values in said.each("data_file")),
        is_synchronised=said.one("clock_synchronised") == "yes",
        clock_offset_s=float(said.one("clock") or now) - now,
    )


def identify(server: Sequence[str], found: DataFile, scratch: Path) -> Identity:
    """Whose file this is, by the server program's own reading of its superblock.

    ``scratch`` is a directory of this machine for a sparse file of the same size. A superblock is
    written copy by copy, so what was read while a replica runs has at most one torn copy, which
    the others outvote. Raises Refusal for a file that is none, or damaged.
    """
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".superblock") as copy:
        copy.write(found.head)
        copy.truncate(found.size)
        copy.flush()
        try:
            done = subprocess.run(
                [*server, "inspect", "superblock", copy.name],
                capture_output=True,
                text=True,
                timeout=INSPECT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refusal(
                f"{found.name}: expected its superblock within {INSPECT_TIMEOUT_S} s, found no "
                "answer. Fix: `make recover` its replica, if the others commit"
            ) from None
    try:
        return data_file.parse_superblock(done.stdout or done.stderr)
    except Refusal as error:
        raise Refusal(f"{found.name}: {error}") from None


def _pid(text: str) -> int:
    return 0 if text in _NO_PID else int(text)


def _peer(text: str) -> Peer:
    known: dict[str, Peer] = {"open": "open", "refused": "refused"}
    return known.get(text, "silent")


def _data_file(name: str, size: str, head: str) -> DataFile:
    return DataFile(name, int(size), zlib.decompress(base64.b64decode(head), wbits=31))


def _address(text: str) -> str:
    """``0100007F`` → 127.0.0.1, as /proc/net/tcp writes it: words in the machine's own order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return str(ipaddress.ip_address(packed))
