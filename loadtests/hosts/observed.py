"""What a load host is like, as it says itself, and whether a load may come from it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cluster import REPOSITORY
from cluster.checks import script
from cluster.checks.rules import PYTHON_MIN, version
from cluster.checks.server import SYSTEMD_MIN
from cluster.refusal import Refusal

#: Wheels of our lock are for this and newer.
GLIBC_MIN = (2, 28)
#: What a worker takes at its start, with room for what it measures.
WORKER_MIB = 512
#: 144 bytes a transfer: seven million of them.
DISK_MIB = 1024
PROGRAMS = ("systemd-run", "tar", "gzip")
#: `uname -m` → the platform of its wheels.
PLATFORMS: Mapping[str, str] = {
    "x86_64": "x86_64-manylinux_2_28",
    "aarch64": "aarch64-manylinux_2_28",
}


@dataclass(frozen=True)
class Observed:
    """A host as ``files/load/observe.sh``, run there, describes it."""

    systemd: str = ""
    machine: str = ""
    libc: str = ""
    python: str = ""
    python_path: str = ""
    cpus: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    io_uring_disabled: str = "0"
    #: A port of its 127.0.0.1 that was free.
    free_port: int = 0
    programs: frozenset[str] = frozenset()
    bundles: frozenset[str] = frozenset()
    units: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    #: What a connection to the nearest replica took.
    rtt_ms: float = 0.0
    #: Replicas' addresses → the host's own towards each; or why it is not reached.
    reached: Mapping[str, str] = field(default_factory=dict)
    missed: Mapping[str, str] = field(default_factory=dict)


def command(addresses: Sequence[str] = ()) -> str:
    """The shell line that makes the host print its observation."""
    return script.command(REPOSITORY / "files" / "load" / "observe.sh", *addresses)


def parse(lines: Sequence[str]) -> Observed:
    """What the script printed."""
    said = script.Printed(lines)
    python = (said.each("python") or [["", ""]])[-1]  # the newest that was tried
    return Observed(
        systemd=said.one("systemd"),
        machine=said.one("machine"),
        libc=said.one("libc"),
        python=python[0],
        python_path=python[-1],
        cpus=_number(said.one("cpus")),
        memory_mib=_number(said.one("memory_mib")),
        disk_mib=_number(said.one("disk_mib")),
        io_uring_disabled=said.one("io_uring_disabled"),
        free_port=_number(said.one("free_port")),
        programs=frozenset(values[0] for values in said.each("program")),
        bundles=frozenset(values[0] for values in said.each("bundle")),
        units=tuple(values[0] for values in said.each("unit")),
        runs=tuple(values[0] for values in said.each("run")),
        rtt_ms=min((float(values[2]) for values in said.each("reached")), default=0.0),
        reached={values[0]: values[1] for values in said.each("reached")},
        missed={values[0]: " ".join(values[1:]) for values in said.each("missed")},
    )


def check(name: str, seen: Observed, workers: int, named: str) -> None:
    """Refuse a host from which no load can come, before anything is brought there.

    ``named`` is the cluster's ``INVENTORY=``. Raises Refusal.
    """
    refuse = partial(_refusal, name)
    check_machine(name, seen)
    if seen.io_uring_disabled not in ("", "0"):
        fix = "sysctl -w kernel.io_uring_disabled=0: TigerBeetle's client needs it"
        raise refuse("io_uring", f"kernel.io_uring_disabled={seen.io_uring_disabled}", fix)
    if seen.memory_mib < workers * WORKER_MIB:
        wanted = f"{workers * WORKER_MIB} MiB of free memory for {workers} workers"
        raise refuse(wanted, f"{seen.memory_mib} MiB", "start fewer with PROCESSES=")
    if seen.disk_mib < DISK_MIB:
        wanted = f"{DISK_MIB} MiB free in /var/lib for the record"
        raise refuse(wanted, f"{seen.disk_mib} MiB", "make room there")
    if seen.units:
        fix = f"wait for its end (a minute, when its master is gone), or stop it: ssh {name} "
        raise refuse("no load to run there", seen.units[0], f"{fix}systemctl stop 'wallet-load-*'")
    if seen.missed and len(seen.reached) <= len(seen.missed):
        address, why = next(iter(seen.missed.items()))
        fix = f"see why they are away: make status {named}"
        if not seen.reached:
            fix = f"add its address to the inventory's clients, then make up {named}"
        raise refuse(f"to reach a majority of the replicas, {address} too", why, fix)


def check_machine(name: str, seen: Observed) -> None:
    """Refuse a host for which nothing can be packed, or that cannot run it. Raises Refusal."""
    refuse = partial(_refusal, name)
    if version(seen.python) < PYTHON_MIN:
        found = f"Python {seen.python}" if seen.python else "none"
        raise refuse("Python 3.11 or newer", found, "install python3 of Debian 12, Ubuntu 24.04")
    if not seen.systemd or int(seen.systemd) < SYSTEMD_MIN:
        fix = "use Debian 12, Ubuntu 22.04 or newer"
        raise refuse(f"systemd {SYSTEMD_MIN} or newer", seen.systemd or "none", fix)
    if seen.machine not in PLATFORMS:
        raise refuse(" or ".join(PLATFORMS), seen.machine or "nothing", "use such a machine")
    if glibc(seen.libc) < GLIBC_MIN:
        wanted, fix = "glibc 2.28 or newer", "use Debian 12, Ubuntu 22.04 or newer"
        raise refuse(wanted, seen.libc or "another C library", fix)
    if absent := [program for program in PROGRAMS if program not in seen.programs]:
        raise refuse(f"{absent[0]} on PATH", "none", "install its package")


def glibc(text: str) -> tuple[int, int]:
    """What `getconf GNU_LIBC_VERSION` says; (0, 0) for another library."""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _refusal(name: str, expected: str, found: str, fix: str) -> Refusal:
    return Refusal(f"load host {name}", expected=expected, found=found, fix=fix)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
