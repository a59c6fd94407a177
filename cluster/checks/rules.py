"""Is this machine, are these servers, fit for their replicas? One list of rules over the facts.

Nothing has been changed when these run. Each rule raises ``Refusal``: expected, found, fix. A
deploy stops at the first; the doctor lists all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cluster.checks import engine, server
from cluster.checks.facts import ANY, Facts, plan
from cluster.checks.machine import Machine, machines
from cluster.config import PREFIX, model
from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import container, of
from cluster.runtimes.docker_engine import COMPOSE_MIN, ENGINE_MIN
from cluster.tigerbeetle.data_file import Plan

#: TigerBeetle needs the io_uring of this kernel.
KERNEL_MIN = (5, 11)
PYTHON_MIN = (3, 11)  # the emulator's own
#: A formatted, still empty data file is 1.063 GiB, all of it allocated; leave room to grow.
DATA_FILE_BYTES = 1_280 * 1024**2
#: File systems that are memory: what they hold is gone with the machine.
VOLATILE = frozenset({"tmpfs", "ramfs"})
#: Ones of another machine, or of a program, as mountinfo and `stat` call them: that what is written
#: is on a disk, and that nobody else holds a file, is their word alone.
REMOTE = re.compile(
    r"nfs4?|cifs|smb[23]?|9p|v9fs|drvfs|virtiofs|vboxsf|prl_fs|afs|ceph|lustre|fuse(blk|\..+)?"
)


@dataclass(frozen=True)
class Finding:
    """Something wrong: its stable key, where, and cause, fix and evidence in a line."""

    key: str
    where: str
    text: str


def examine(
    deployment: Deployment, seen: Mapping[int, Facts], only: Collection[str] = ()
) -> Iterator[Finding]:
    """All that is wrong, each machine by itself first; ``only`` these keys, if they are given."""
    found = machines(deployment, seen)
    asked = [
        (key, machine.name or "this machine", partial(rule, machine))
        for machine in found
        for key, rule in OF_ONE_MACHINE.items()
    ]
    asked += [(key, "servers", partial(rule, found)) for key, rule in OF_ALL_TOGETHER.items()]
    for key, where, ask in asked:
        if not only or key in only:
            try:
                ask()
            except Refusal as refusal:
                yield Finding(key, where, str(refusal))


def check(deployment: Deployment, seen: Mapping[int, Facts], only: Collection[str] = ()) -> None:
    """Raises Refusal for the first thing that is wrong; ``only`` these keys, if they are given."""
    for finding in examine(deployment, seen, only):
        raise Refusal(finding.text)


def check_all(
    deployment: Deployment, seen: Mapping[int, Facts], *, is_asked_for: bool = False
) -> Plan | None:
    """All that a deploy checks before it changes anything; what the data files allow.

    In this order: a port that another program holds looks to its peers like a cluster that lives
    there, and only the first refusal is heard. Raises Refusal.
    """
    check_machines(deployment, seen)
    return plan(deployment, seen, is_asked_for=is_asked_for)


def check_machines(deployment: Deployment, seen: Mapping[int, Facts]) -> None:
    """The same, but for the data files: they are about to be put there. Raises Refusal."""
    check(deployment, seen)
    of_kind = {found.machine or "": index for index, found in seen.items()}
    for machine, index in of_kind.items():
        of(deployment).check_program(index, machine)


def _kernel(machine: Machine) -> None:
    kernel, disabled = machine.seen.kernel, machine.seen.io_uring_disabled
    if kernel is not None and version(kernel) < KERNEL_MIN:
        machine.refuse(
            f"{KERNEL_MIN[0]}.{KERNEL_MIN[1]} or newer",
            kernel or "none",
            "upgrade it: older ones lack the io_uring that TigerBeetle needs",
            here="kernel",
            there="kernel ",
        )
    if kernel is not None and disabled != "0":
        machine.refuse(
            "0",
            disabled,
            "sysctl -w kernel.io_uring_disabled=0, if whoever set it agrees",
            here="kernel.io_uring_disabled",
            there="kernel.io_uring_disabled = ",
        )


def _processor(machine: Machine) -> None:
    found = machine.seen.machine
    if found not in (None, "x86_64", "aarch64"):
        machine.refuse("x86_64 or aarch64", found, "TigerBeetle runs on these alone")


def _python(machine: Machine) -> None:
    found = machine.seen.python
    is_needed = of(machine.deployment).NEEDS_PYTHON and machine.deployment.is_emulator
    if is_needed and version(found) < PYTHON_MIN:
        wanted = "Python 3.11 or newer, for the emulator"
        machine.refuse(wanted, found or "none", "install python3")


def _docker(machine: Machine) -> None:
    seen = machine.seen
    is_old = version(seen.docker or "") < ENGINE_MIN or version(seen.compose) < COMPOSE_MIN
    if seen.docker is not None and of(machine.deployment).NEEDS_DOCKER and is_old:
        machine.refuse(
            f"Docker {ENGINE_MIN[0]}.{ENGINE_MIN[1]} and Compose {COMPOSE_MIN[0]}."
            f"{COMPOSE_MIN[1]}, or newer",
            f"Docker {seen.docker or 'none'}, Compose {seen.compose or 'none'}",
            f"pyinfra {shlex.quote(machine.deployment.file)} tasks.docker.install, or "
            'runtime="systemd"',
        )


def _one_runtime(machine: Machine) -> None:
    words, runtime = {"systemd": "the unit", "docker": "the container"}, machine.deployment.runtime
    for index, seen in machine.facts.items():
        for other in seen.running.keys() - {runtime}:
            name = machine.deployment.cluster.replicas[index].name
            machine.refuse(
                f"replica {index} under {runtime} alone",
                f"{words[other]} {name} running too",
                f'with runtime="{other}" there: make down {machine.deployment.named}; then go on '
                "with this one: its data file stays",
            )


def _supervised(machine: Machine) -> None:
    for index, seen in machine.facts.items():
        if seen.orphan:
            machine.refuse(
                "it under its supervisor",
                f"it as pid {seen.orphan} without one",
                f"make down {machine.deployment.named}",
                here=f"replica {index}",
            )


def _ports(machine: Machine) -> None:
    for index, seen in machine.facts.items():
        replica = machine.deployment.listed[index]
        if machine.runs(seen) and seen.has_port(replica):
            continue
        if seen.listening & (ANY | {str(replica.ip)}):
            adopt = f"make adopt {machine.deployment.named}, if it is this very replica; or "
            is_one = bool(machine.name) and "tigerbeetle" in seen.holder
            machine.refuse(
                f"{replica.address} to be free",
                f"{seen.holder or 'a process'} listening",
                f"{adopt * is_one}stop it, unless it is another cluster's replica; or set another "
                f"{PREFIX}{index}_PORT, and change {PREFIX}ADDRESSES with it",
                here=f"{PREFIX}{index}_PORT",
            )


def _disk(machine: Machine) -> None:
    seen = machine.seen
    # The emulator to try things with runs anywhere; on servers it rehearses the real one.
    is_small = not machine.name and machine.deployment.is_emulator
    if machine.name and seen.filesystem in VOLATILE:
        machine.refuse(
            f"{seen.directory} on a disk",
            f"{seen.filesystem}, which is memory",
            "mount a disk there, or set data_dir in the inventory",
        )
    if REMOTE.fullmatch(seen.filesystem or "") and not is_small:
        machine.refuse(
            f"{seen.directory} on a disk of the machine's own",
            f"{seen.filesystem}, which another machine or a program serves",
            f"set {of(machine.deployment).DISK_SETTING} to a directory on ext4 or XFS",
            here="disk",
        )
    if seen.has_direct_io is False:
        machine.refuse(
            f"direct I/O under {seen.directory}",
            f"none on {seen.filesystem}",
            "use ext4 or XFS on a disk of its own",
        )
    lacking = [f for f in machine.together.values() if not f.data_files and not f.has_volume]
    needed = len(lacking) * DATA_FILE_BYTES
    if seen.disk_bytes is not None and seen.disk_bytes < needed and not is_small:
        machine.refuse(
            f"{needed / 1024**3:.2f} GiB free in {seen.directory} for {len(lacking)} data files",
            f"{seen.disk_bytes / 1024**3:.1f} GiB",
            f"free some, or set {of(machine.deployment).DISK_SETTING} to a larger disk",
            here="disk",
        )


def _memory(machine: Machine) -> None:
    """All replicas together, as they will be: those that run give back what they hold."""
    free, replicas = machine.seen.memory_bytes, machine.together
    each = model.memory_bytes(machine.deployment.cluster)
    running = [f for f in replicas.values() if machine.runs(f)]
    held = sum(model.held_bytes(seen.arguments) or each for seen in running)
    needed, plural = len(replicas) * each, "s" if len(replicas) > 1 else ""
    if free is not None and free + held < needed and not machine.deployment.is_emulator:
        machine.refuse(
            f"{needed / 1024**3:.1f} GiB of memory for {len(replicas)} replica{plural}",
            f"{free / 1024**3:.1f} GiB free"
            + (f" beside {held / 1024**3:.1f} GiB that {len(running)} hold" if running else ""),
            f"free some, or lower {PREFIX}CACHE_GRID",
            here="memory",
        )


def _memlock(machine: Machine) -> None:
    """Granted, or the engine's own serves: the capability locks memory, whatever the limit."""
    _of_engine(container.lowered, machine)
    cluster, limits = machine.deployment.cluster, machine.seen.engine_limits
    own = container.own_limit(cluster, limits)
    if own is not None and of(machine.deployment).NEEDS_DOCKER:
        name, is_real = f"the engine of {machine.name}", container.is_initial(limits)
        container.settle(cluster, str(own // 1024), name, is_real=is_real)


def _of_engine(rule: Callable[[model.Cluster], object], machine: Machine) -> None:
    """A rule of this machine's Docker engine, where that runs the replicas."""
    if machine.seen.engine is not None:
        rule(machine.deployment.cluster)


#: Key → rule, the cheapest first; one whose failure explains another's stands before that.
OF_ONE_MACHINE: Mapping[str, Callable[[Machine], None]] = {
    "kernel": _kernel,
    "place": lambda machine: of(machine.deployment).check_place(),
    "systemd": server.systemd,
    "processor": _processor,
    "python": _python,
    "one-runtime": _one_runtime,
    "docker": _docker,
    "identity": server.identity,
    "account": server.account,
    "directory": server.directory,
    "owners": server.owners,
    "model": partial(_of_engine, engine.check_model),
    "names": partial(_of_engine, engine.check_names),
    "supervised": _supervised,
    "ports": _ports,
    "subnet": partial(_of_engine, engine.check_subnet),
    "addresses": partial(_of_engine, engine.check_addresses),
    "memory": _memory,
    "disk": _disk,
    "memlock": _memlock,
    "clock": server.clock,
}
OF_ALL_TOGETHER: Mapping[str, Callable[[Sequence[Machine]], None]] = {
    "separation": server.separation,
    "peers": server.peers,
    "clocks": server.clocks,
}


def version(text: str) -> tuple[int, int]:
    """Its first two numbers; zeroes where it has none."""
    match = re.search(r"(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
