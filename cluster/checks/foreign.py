"""Servers of this cluster that somebody else has started: what they are, as their machine says.

Printed there by ``files/tigerbeetle/foreign.sh``. Whether they can be adopted is judged in
``cluster.checks.adoption``. Pure.
"""

from __future__ import annotations

import base64
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from cluster import REPOSITORY
from cluster.checks import script
from cluster.checks.facts import DataFile
from cluster.config.deployment import Deployment
from cluster.runtimes import layout

SCRIPT = REPOSITORY / "files" / "tigerbeetle" / "foreign.sh"
#: Where the server listens when an address does not say it.
_DEFAULT_IP, _DEFAULT_PORT = "127.0.0.1", "3001"

Starter = Literal["hand", "unit", "container"]


@dataclass(frozen=True)
class File:
    """A data file as it lies on its server, and its first 96 KiB."""

    path: str
    size: int
    owner: str  # UID:GID
    mode: str
    inode: str
    filesystem: str
    mount: str  # where that is mounted
    head: bytes = field(repr=False, default=b"")

    def named(self, name: str) -> DataFile:
        """As a file of the replica's own directory would be told."""
        return DataFile(name, self.size, self.head)


@dataclass(frozen=True)
class Process:
    """A server that runs: by whom, with what, and who would start it again."""

    pid: int
    user: str
    is_listening: bool  # on the replica's port
    arguments: tuple[str, ...]
    parent_pid: int
    parent: tuple[str, ...] = ()  # what its parent was started with
    started_in: str = "/"
    output: str = ""  # the file that it writes to, if it is one
    group: str = ""  # its systemd unit or scope
    main_pid: int = 0  # of that unit
    unit_state: str = ""  # enabled, disabled, static, transient, ...
    container: tuple[str, ...] | None = None  # name, restart policy, `true` if it goes when it ends
    file: File | None = None
    log: tuple[str, ...] = ()

    @property
    def starter(self) -> Starter:
        """Who is asked to stop it, and to start it again."""
        if self.container is not None:
            return "container"
        is_main = self.main_pid and self.main_pid in (self.pid, self.parent_pid)
        return "unit" if is_main and self.group.endswith(".service") else "hand"

    @property
    def options(self) -> dict[str, str]:
        """Option → value; flags that are off are left out."""
        given = (each.partition("=")[::2] for each in self.arguments[2:-1])
        return {name: value for name, value in given if value != "false"}

    @property
    def addresses(self) -> tuple[str, ...]:
        """As IP:PORT each, in the order of the replicas."""
        return tuple(map(_full, self.options.get("--addresses", "").split(",")))

    @property
    def stop(self) -> str:
        """The shell line that ends it for good."""
        if self.starter == "unit":
            disable = f"systemctl disable --quiet {self.group}; " if self._is_enabled else ""
            return f"{disable}systemctl stop {self.group}"
        if self.container:
            name = self.container[0]
            return f"docker update --restart=no {name} >/dev/null && docker stop {name} >/dev/null"
        return f"kill -TERM {self.pid}"

    @property
    def again(self) -> str:
        """The shell line that starts it as it was."""
        if self.starter == "unit" and self.unit_state != "transient":
            enable = f"systemctl enable --quiet {self.group}; " if self._is_enabled else ""
            return f"{enable}systemctl start {self.group}"
        if self.container:
            name, policy = self.container[:2]
            return f"docker update --restart={policy} {name} >/dev/null && docker start {name}"
        by = "" if self.user == "root" else f"runuser -u {shlex.quote(self.user)} -- "
        output = shlex.quote(self.output or "/dev/null")  # opened by the user, who may write there
        command = shlex.quote(f"exec {shlex.join(self.arguments)} >>{output} 2>&1")
        where, nothing = shlex.quote(self.started_in), "</dev/null >/dev/null 2>&1"
        return f"cd {where} && {{ setsid {by}sh -c {command} {nothing} & }}"

    @property
    def _is_enabled(self) -> bool:
        return self.unit_state.startswith("enabled")


@dataclass(frozen=True)
class Note:
    """What an adoption that was cut off has left: the file's old place, and how it was served."""

    path: str
    owner: str
    mode: str
    inode: str
    again: str

    @classmethod
    def of(cls, process: Process) -> Note:
        """What is noted before this one is stopped."""
        assert process.file is not None  # noqa: S101 - it was judged
        file = process.file
        return cls(file.path, file.owner, file.mode, file.inode, process.again)

    @classmethod
    def parse(cls, text: str) -> Note | None:
        """None where it was cut off itself: then nothing was stopped."""
        lines = text.splitlines()
        return cls(*lines[:5]) if len(lines) == 6 and lines[5] == "." else None

    def __str__(self) -> str:
        return "\n".join([self.path, self.owner, self.mode, self.inode, self.again, ".", ""])


@dataclass(frozen=True)
class Found:
    """What one server says of the TigerBeetle servers on it."""

    processes: tuple[Process, ...] = ()
    mount: str = ""  # on which the replica's own place is, or will be
    note: Note | None = None
    noted: File | None = None  # the file of the note, if it is still there
    starters: tuple[tuple[str, str], ...] = ()  # what would start one: name, `enabled` or `cron`
    clients: frozenset[str] = frozenset()  # who is connected to the replica's port


def command(deployment: Deployment, index: int) -> str:
    """The shell line that makes replica ``index``'s server print it."""
    port = str(deployment.cluster.replicas[index].port)
    return script.command(SCRIPT, layout.directory(deployment, index), port, note_path(index))


def note_path(index: int) -> str:
    """Where the note of an adoption under way is: root's alone, for its lines are run."""
    return f"{layout.ETC}/adopting-{index}"


def parse(lines: Sequence[str]) -> Found:
    """What the script printed. Raises ValueError or LookupError for anything else."""
    said = script.Printed(lines)
    of_pid: dict[str, dict[str, list[str]]] = {}
    for key in ("arguments", "parent", "started_in", "output", "group", "container", "file"):
        for pid, *values in said.each(key):
            of_pid.setdefault(pid, {})[key] = values
    for key in ("head", "log"):
        for pid, *values in said.each(key):
            of_pid.setdefault(pid, {})[key] = values
    return Found(
        processes=tuple(_process(values, of_pid[values[0]]) for values in said.each("process")),
        mount=_text(said.one("mount")),
        note=Note.parse(_decoded(said.one("note")).decode()),
        noted=_file(of_pid.get("0", {})),
        starters=tuple((name, " ".join(state)) for name, *state in said.each("starter")),
        clients=frozenset(values[0] for values in said.each("client") if values),
    )


def _process(values: list[str], said: dict[str, list[str]]) -> Process:
    pid, user, is_listening, parent_pid = values
    group, *states = said.get("group") or [""]
    main_pid = states.pop(0) if states and states[0].isdecimal() else "0"
    return Process(
        pid=int(pid),
        user=user,
        is_listening=is_listening == "yes",
        arguments=_words(said["arguments"]),
        parent_pid=int(parent_pid),
        parent=_words(said.get("parent", [])),
        started_in=_text(" ".join(said.get("started_in", []))),
        output=_text(" ".join(said.get("output", []))),
        group=group,
        main_pid=int(main_pid),
        unit_state=" ".join(states),
        container=_container(said["container"]) if "container" in said else None,
        file=_file(said),
        log=tuple(_unpacked(said.get("log", [])).decode(errors="replace").splitlines()),
    )


def _container(said: list[str]) -> tuple[str, ...]:
    """Nothing in it where Docker does not know it: it is another engine's."""
    return (said[1].removeprefix("/"), *said[2:]) if len(said) == 4 else ()


def _file(said: dict[str, list[str]]) -> File | None:
    if "file" not in said:
        return None
    path, size, uid, gid, mode, inode, filesystem, mount = said["file"]
    head = _unpacked(said.get("head", []))
    return File(_text(path), int(size), f"{uid}:{gid}", mode, inode, filesystem, _text(mount), head)


def _full(address: str) -> str:
    """``IP:PORT`` of an address, of which one part may be left out."""
    ip, colon, port = address.rpartition(":")
    if not colon:
        ip, port = (_DEFAULT_IP, address) if address.isdecimal() else (address, _DEFAULT_PORT)
    try:
        return f"{IPv4Address(ip)}:{port}"
    except ValueError:
        return address


def _decoded(word: str) -> bytes:
    return base64.b64decode(word)


def _text(word: str) -> str:
    return _decoded(word).decode(errors="surrogateescape").rstrip("\n")


def _words(said: list[str]) -> tuple[str, ...]:
    """What a process was started with, as /proc has it: each ends with a zero."""
    whole = _decoded(said[0] if said else "").decode(errors="surrogateescape")
    return tuple(whole.removesuffix("\0").split("\0")) if whole else ()


def _unpacked(said: list[str]) -> bytes:
    return zlib.decompress(_decoded(said[0]), wbits=31) if said else b""
