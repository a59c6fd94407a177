"""What a machine is like before anything is changed on it, for one replica.

A server prints it itself (``files/tigerbeetle/observe.sh``); ``cluster.checks.observe`` finds out
the same of this machine. Pure, but for ``identify``, which lets the server program on this machine
read a superblock.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cluster import REPOSITORY
from cluster.checks import existence, script
from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.runtimes import container, of, program
from cluster.tigerbeetle import binary
from cluster.tigerbeetle.data_file import (
    Identity,
    Plan,
    decide,
    is_half_restored,
    refuse_half_restored,
    refuse_others,
)

SCRIPT = REPOSITORY / "files" / "tigerbeetle" / "observe.sh"

DATA_SUFFIX = ".tigerbeetle"
#: Docker's client prints this where there is no container; systemd where nothing runs.
_NO_PID = ("", "0")
#: Whoever listens here, listens at every address.
ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound

Peer = Literal["open", "refused", "silent"]
_PEERS: Mapping[str, Peer] = {"open": "open", "refused": "refused"}


@dataclass(frozen=True)
class DataFile:
    """A file in the replica's directory: its size, its first 96 KiB, and uid:gid on a server."""

    name: str
    size: int
    head: bytes = field(repr=False)
    owner: str = ""


@dataclass(frozen=True)
class Facts:
    """One replica's machine, as it says itself: empty strings and zeros where it did not say.

    None where a fact does not matter, or cannot be known: no rule looks at it.
    """

    kernel: str | None = ""
    machine: str | None = ""
    io_uring_disabled: str = "0"
    memory_bytes: int | None = 0  # available, beside what running replicas hold
    directory: str = ""  # where the data file is, or will be
    disk_bytes: int | None = 0  # free there
    filesystem: str | None = ""
    has_direct_io: bool | None = False
    systemd: str | None = ""
    docker: str | None = ""
    compose: str = ""
    engine_limits: str = ""  # of a server's Docker, see ``container.own_limit``
    engine: Mapping[str, Any] | None = None  # this machine's Docker, by its own word
    owner: str = ""  # the name of the uid that the replicas have
    user: str = ""  # the uid of the name that they have
    group_owner: str = ""  # likewise of the gid
    group: str = ""
    account: str = ""  # of the user, uid:gid:home:shell
    place: str = ""  # where the replica's directory really is, links followed
    obstacle: str = ""  # no directory, but in the place of one
    unreachable: str = ""  # a directory above, which the replicas' uid cannot enter
    links: Mapping[str, str] = field(default_factory=dict)  # in the place of files → targets
    addresses: frozenset[str] | None = frozenset()
    python: str = ""
    settings: str = ""  # fingerprint of those with which the replica runs
    arguments: str = ""  # of the server that runs: start --addresses=... --cache-grid=...
    running: Mapping[str, int] = field(default_factory=dict)  # runtime → the replica's process
    orphan: int = 0  # its process, where that has lost its supervisor
    listening: frozenset[str] = frozenset()  # addresses, on the replica's port
    holder: str = ""  # of that port, where it can be seen
    peers: Mapping[str, Peer] = field(default_factory=dict)  # by IP:PORT
    is_bootstrapping: bool = False
    data_files: tuple[DataFile, ...] = ()
    leftovers: tuple[str, ...] = ()  # of a restore: names beside the data file's
    has_volume: bool = False  # in which its data file may be
    is_synchronised: bool | None = False
    clock_offset_s: float = 0.0  # to this machine's clock

    def has_port(self, replica: Replica) -> bool:
        """The running server listens there already; taken for granted where it does not say."""
        addresses = re.search(r"--addresses=(\S+)", self.arguments)
        own = addresses[1].split(",")[replica.index] if addresses else ""
        return own.rpartition(":")[2] in ("", str(replica.port))


def parse(lines: Sequence[str], now: float, directory: str = "") -> Facts:
    """What the script printed; ``now`` is this machine's time when its last line came."""
    said = script.Printed(lines)
    pids = {"systemd": said.one("unit"), "docker": said.one("container")}
    names = [each.name for each in fields(Facts) if isinstance(each.default, str)]
    texts: dict[str, Any] = {name: said.one(name) for name in names}
    return Facts(
        **texts | {"directory": directory},
        memory_bytes=int(said.one("memory_kib") or 0) * 1024,
        disk_bytes=int(said.one("disk_kib") or 0) * 1024,
        has_direct_io=said.one("direct_io") == "yes",
        addresses=frozenset(values[0] for values in said.each("address")),
        running={runtime: int(pid) for runtime, pid in pids.items() if pid not in _NO_PID},
        listening=frozenset(_address(values[0]) for values in said.each("listening")),
        peers={values[0]: _PEERS.get(values[1], "silent") for values in said.each("peer")},
        is_bootstrapping=said.one("bootstrapping") == "yes",
        data_files=tuple(_data_file(*values) for values in said.each("data_file")),
        leftovers=tuple(values[0] for values in said.each("leftover")),
        links={values[0]: " ".join(values[1:]) for values in said.each("link")},
        is_synchronised=said.one("clock_synchronised") == "yes",
        clock_offset_s=float(said.one("clock") or now) - now,
    )


def limited(deployment: Deployment, seen: Mapping[int, Facts]) -> Deployment:
    """The same, where servers' engines grant no memlock limit, with their own in its place."""
    if not of(deployment).NEEDS_DOCKER:
        return deployment
    own = {i: container.own_limit(deployment.cluster, seen[i].engine_limits) for i in seen}
    servers = [s.model_copy(update={"memlock": own[s.replica]}) for s in deployment.servers]
    return deployment.model_copy(update={"servers": tuple(servers)})


@cache  # a deploy asks before its checks and again before it formats
def identify(server: tuple[str, ...], found: DataFile, scratch: Path) -> Identity:
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
        return binary.superblock(server, copy.name, name=found.name).identity


def missing(deployment: Deployment, seen: Mapping[int, Facts]) -> list[int]:
    """The replicas that have no data file. Raises Refusal where that cannot be known."""
    runtime = of(deployment)
    if runtime.HIDES_FILES:
        files = runtime.files()
        return [index for index in files if runtime.data_file_name(index) not in files[index]]
    return [index for index, found in seen.items() if not found.data_files]


def half_restored(deployment: Deployment, seen: Mapping[int, Facts]) -> bool:
    """A restore was cut off between its renames. Raises Refusal where that cannot be known."""
    runtime = of(deployment)
    of_each = {index: found.leftovers for index, found in seen.items()}
    return is_half_restored(runtime.files() if runtime.HIDES_FILES else of_each)


def plan(
    deployment: Deployment, seen: Mapping[int, Facts], *, is_asked_for: bool = False
) -> Plan | None:
    """What the data files allow; None where that is only known later. Raises Refusal.

    A cluster that has existed is made anew only where that is asked for; one on servers always:
    whoever asks may not be who made it.
    """
    runtime, past = of(deployment), existence.past(deployment)
    is_asked_for = is_asked_for or not (deployment.settings or past.traces)
    if runtime.HIDES_FILES:
        return runtime.plan(past, is_asked_for=is_asked_for)

    leftovers = {index: found.leftovers for index, found in seen.items()}
    refuse_half_restored(leftovers, past.restore)

    def identity(index: int, found: Facts) -> Identity | None:
        names = [each.name for each in found.data_files]
        refuse_others(index, runtime.data_file_name(index), names)
        if not found.data_files:
            return None
        server = tuple(program.reader(deployment))
        return identify(server, found.data_files[0], deployment.state_dir)

    with ThreadPoolExecutor(len(seen)) as together:  # each starts the server's program
        identities = list(together.map(identity, seen, seen.values()))
    having = [found for found in seen.values() if found.data_files]
    return decide(
        dict(zip(seen, identities, strict=True)),
        deployment.cluster,
        # An earlier first format was interrupted: whatever has a file has never been started.
        is_bootstrapping=bool(having) and all(found.is_bootstrapping for found in having),
        is_asked_for=is_asked_for,
        answering=[r.index for r in deployment.cluster.replicas if _answers(seen, r)],
        past=past,
    )


def _answers(seen: Mapping[int, Facts], replica: Replica) -> bool:
    is_listening = bool(seen[replica.index].listening & (ANY | {str(replica.ip)}))
    return is_listening or any(f.peers.get(replica.address) == "open" for f in seen.values())


def _data_file(name: str, size: str, head: str, owner: str = "") -> DataFile:
    return DataFile(name, int(size), zlib.decompress(base64.b64decode(head), wbits=31), owner)


def _address(text: str) -> str:
    """``0100007F`` → 127.0.0.1, as /proc/net/tcp writes it: words in the machine's own order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return str(ipaddress.ip_address(packed))
