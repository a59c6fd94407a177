"""Machines whose files, rights, limits or terminal are broken."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.operate.place import Machine, Place, named

# --- Files and directories -----------------------------------------------------------------------


def _without_rights() -> None:
    """What an ordinary user has: root's right to read and write everything is given up."""
    libc = ctypes.CDLL(None, use_errno=True)
    capabilities = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for number in capabilities:
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP, which fails for an ordinary user
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for index in range(3):
        sets[index] &= ~sum(1 << number for number in capabilities)
    libc.capset(header, sets)


def _closed(place: Place, path: Path, mode: int = 0) -> None:
    path.chmod(mode)
    place.suffers.append(_without_rights)
    place.at_end.append(partial(path.chmod, 0o700))


def _replaced(path: Path, by: bytes | None) -> None:
    """A file of other bytes in its place; None: a directory."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if by is None:
        path.mkdir(parents=True)
    else:
        path.write_bytes(by)


def _no_room(place: Place) -> None:
    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    place.suffers.append(full)


def _directory(name: str, where: Callable[[Place], Path]) -> None:
    named(f"{name}: a file", lambda place: _replaced(where(place), b"x"))
    named(f"{name}: unreadable", lambda place: _closed(place, where(place)))
    named(f"{name}: read-only", lambda place: _closed(place, where(place), 0o500))


_directory("state", lambda place: place.state)
_directory("data", lambda place: place.data)
_directory("backups", lambda place: place.data / "backups")
_directory("runs", lambda place: place.data / "runs")
_directory("records", lambda place: place.data / "records")
named("data: gone", lambda p: shutil.rmtree(p.data))
named("disk: full", _no_room)
named("temporary: missing", lambda p: p.environ.update(TMPDIR="/nonexistent"))
named("home: unset", lambda p: [p.environ.pop("HOME"), p.environ.update(BACKUP_DIR="~/b")])
named("home: unknown", lambda p: p.environ.update(BACKUP_DIR="~nobody-has-this-name/b"))


def _each_data_file(place: Place, do: Callable[[Path], object]) -> None:
    for path in place.data_files():
        do(path)


for _name, _do in {
    "empty": lambda f: f.write_bytes(b""),
    "truncated": lambda f: os.truncate(f, 1000),
    "noise": lambda f: f.write_bytes(bytes(range(256)) * 400),
    "a directory": lambda f: _replaced(f, None),
    "a link to nothing": lambda f: [f.unlink(), f.symlink_to("/nonexistent")],
    "a link to itself": lambda f: [f.unlink(), f.symlink_to(f.name)],
}.items():
    named(f"data file: {_name}", partial(_each_data_file, do=_do))
named("data file: unreadable", lambda p: _each_data_file(p, partial(_closed, p)))


# --- What has been written -----------------------------------------------------------------------


def _rewritten(
    place: Place, where: Callable[[Place], Path], change: Callable[[bytes], bytes]
) -> None:
    path = where(place)
    path.write_bytes(change(path.read_bytes()))


def _garbled(where: Callable[[Place], Path], name: str) -> None:
    wrong_types = re.compile(rb'": ?("[^"]*"|[0-9.]+)')
    for what, change in {
        "torn": lambda text: text[: len(text) // 2],
        "not UTF-8": lambda _: b"\xff\xfe\n",
        "a list": lambda _: b"[]\n",
        "null": lambda _: b"null\n",
        "of other types": lambda text: wrong_types.sub(b'": {}', text),
        "empty": lambda _: b"",
    }.items():
        named(f"{name}: {what}", partial(_rewritten, where=where, change=change))
    named(f"{name}: a directory", lambda p: _replaced(where(p), None))


_garbled(lambda p: p.repository / "env" / "tigerbittle.env", "env file")
_garbled(lambda p: p.backup / "manifest.json", "manifest")
for _file in ("run.json", "result.json", "audit.json", "gate.json", "faults.jsonl", "target.json"):
    _garbled(lambda p, f=_file: p.run / f, _file)  # type: ignore[misc]
_garbled(lambda p: p.run / "history.jsonl", "history")
_garbled(lambda p: p.state / "supervisord.conf", "supervisor's file")
_garbled(lambda p: p.state / "replica-1" / "replica.log", "log")
named("record: torn", lambda p: (p.run / "record-0.bin").write_bytes(b"x" * 7))


# --- The process that runs the command -----------------------------------------------------------


def _limit(kind: int, value: int) -> Machine:
    return lambda place: place.suffers.append(partial(resource.setrlimit, kind, (value, value)))


def _no_proc() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) == 0:  # CLONE_NEWNS; an ordinary user may not
        libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        libc.mount(b"none", b"/proc", b"tmpfs", 0, None)


def _clock(seconds: float) -> Machine:
    def off() -> None:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + seconds
        time.time_ns = lambda: now_ns() + int(seconds * 1e9)

    return lambda place: place.suffers.append(off)


def _unresolvable() -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    socket.getaddrinfo = socket.gethostbyname = fail  # type: ignore[assignment]


def _moved(place: Place, name: bytes) -> None:
    """The data are below a path of this name."""
    to = Path(os.fsdecode(os.fsencode(place.data.parent) + b"/" + name))
    place.data.rename(to)
    for key, value in place.environ.items():
        place.environ[key] = value.replace(str(place.data), str(to))
    place.data = to


named("files: 20 at most", _limit(resource.RLIMIT_NOFILE, 20))
named("/proc: empty", lambda p: p.suffers.append(_no_proc))
named("clock: in 1970", _clock(-1.79e9))
named("clock: in 9999", _clock(2e11))
named("names: not resolved", lambda p: p.suffers.append(_unresolvable))
named("path: not UTF-8", partial(_moved, name=b"d\xff"))
named("path: a line end", partial(_moved, name=b"d\n'%s"))
named("terminal: 20 columns", lambda p: p.environ.update(COLUMNS="20"))
named("terminal: no number", lambda p: p.environ.update(COLUMNS="x", LINES="-5"))
named("stdout: closed", lambda p: setattr(p, "stdout", "closed"))
named("stdout: nobody reads", lambda p: setattr(p, "stdout", "broken"))
named("stdout: full", lambda p: setattr(p, "stdout", "/dev/full"))
for _name, _text in {
    "not UTF-8": b"\xff\xfe",
    "no Python": b"hosts = [",
    "fails": b"raise RuntimeError",
    "another's": b'hosts = ["a", "b"]',
    "says little": b'hosts = [("@local", {"runtime": "process"})]',
    "of other types": b'hosts = [("@local", {"runtime": "x", "deployment": 7, "engine": []})]',
}.items():

    def _inventory(place: Place, text: bytes = _text) -> None:
        (place.programs / "broken.py").write_bytes(text)
        place.environ["INVENTORY"] = str(place.programs / "broken.py")

    named(f"inventory: {_name}", _inventory)
