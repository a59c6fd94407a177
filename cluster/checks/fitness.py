"""Are these servers fit for their replicas? Checks over what was observed on all of them. Pure.

Nothing has been changed when these run. Each raises ``Refusal``: expected, found, fix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from cluster.checks.observation import Observation
from cluster.checks.readiness import DATA_FILE_BYTES, KERNEL_MIN
from cluster.config import model
from cluster.config.inventory import Deployment
from cluster.refusal import Refusal
from cluster.runtimes import layout

#: `ProtectProc`, `RestrictSUIDSGID` and journal namespaces of the unit need it.
SYSTEMD_MIN = 247
DOCKER_MIN = (20, 10)
COMPOSE_MIN = (2, 20)
PYTHON_MIN = (3, 11)  # the emulator's own
#: Replicas estimate the cluster's time from all clocks; seconds apart, they can agree on none.
CLOCK_SPREAD_MAX_S = 5.0
#: File systems that are memory: what they hold is gone with the machine.
VOLATILE = frozenset({"tmpfs", "ramfs"})

_NUMBERS = re.compile(r"(\d+)(?:\.(\d+))?")
_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


def check_server(deployment: Deployment, index: int, seen: Observation) -> None:
    """Everything about one server that the others have no part in. Raises Refusal."""
    _check_kernel(index, seen)
    _check_runtime(deployment, index, seen)
    _check_identity(deployment, index, seen)
    _check_port(deployment, index, seen)
    _check_disk(deployment, index, seen)
    _check_memory(deployment, index, seen)
    if deployment.settings and deployment.settings.check_clock and not seen.is_synchronised:
        _refuse(
            index,
            "a clock that a time service keeps right",
            "one that is not synchronised",
            "install chrony, or `timedatectl set-ntp true`, and wait until `timedatectl` says so",
        )


def check_together(deployment: Deployment, seen: Mapping[int, Observation]) -> None:
    """What only all servers together show. Raises Refusal."""
    _check_separation(deployment, seen)
    _check_peers(deployment, seen)
    _check_clocks(deployment, seen)


def pid_of(deployment: Deployment, seen: Observation) -> int:
    """The replica's process under the deployment's own runtime, 0 when it does not run."""
    return seen.unit_pid if deployment.runtime == "systemd" else seen.container_pid


def _check_kernel(index: int, seen: Observation) -> None:
    if _version(seen.kernel) < KERNEL_MIN:
        _refuse(
            index,
            f"kernel {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or newer",
            seen.kernel or "none",
            "upgrade it: older ones lack the io_uring that TigerBeetle needs",
        )
    if seen.io_uring_disabled != "0":
        _refuse(
            index,
            "kernel.io_uring_disabled = 0",
            seen.io_uring_disabled,
            "sysctl -w kernel.io_uring_disabled=0, if whoever set it agrees",
        )


def _check_runtime(deployment: Deployment, index: int, seen: Observation) -> None:
    if not seen.systemd or int(seen.systemd) < SYSTEMD_MIN:
        _refuse(
            index,
            f"systemd {SYSTEMD_MIN} or newer",
            seen.systemd or "none",
            "use a distribution that has it, such as Debian 12",
        )
    if seen.machine not in ("x86_64", "aarch64"):
        _refuse(index, "x86_64 or aarch64", seen.machine, "TigerBeetle runs on these alone")
    if deployment.runtime == "systemd":
        if deployment.engine == "emulator" and _version(seen.python) < PYTHON_MIN:
            _refuse(
                index,
                "Python 3.11 or newer, for the emulator",
                seen.python or "none",
                "install python3",
            )
        if seen.container_pid:
            _refuse_two_runtimes(deployment, index, "the container", "docker")
        return
    if seen.unit_pid:
        _refuse_two_runtimes(deployment, index, "the unit", "systemd")
    if _version(seen.docker) < DOCKER_MIN or _version(seen.compose) < COMPOSE_MIN:
        _refuse(
            index,
            f"Docker {DOCKER_MIN[0]}.{DOCKER_MIN[1]} and Compose {COMPOSE_MIN[0]}."
            f"{COMPOSE_MIN[1]}, or newer",
            f"Docker {seen.docker or 'none'}, Compose {seen.compose or 'none'}",
            'pyinfra INVENTORY tasks.docker.install, or runtime="systemd"',
        )


def _refuse_two_runtimes(deployment: Deployment, index: int, what: str, runtime: str) -> NoReturn:
    name = deployment.cluster.replicas[index].name
    _refuse(
        index,
        f"replica {index} under {deployment.runtime} alone",
        f"{what} {name} running too",
        f'make down with runtime="{runtime}" first: its data file stays',
    )


def _check_identity(deployment: Deployment, index: int, seen: Observation) -> None:
    replica = deployment.cluster.replicas[index]
    if str(replica.ip) not in seen.addresses:
        others = [r for r in deployment.cluster.replicas if str(r.ip) in seen.addresses]
        is_swapped = f", which is replica {others[0].index}'s" if others else ""
        _refuse(
            index,
            f"a server that has {replica.ip}",
            f"one that has {', '.join(sorted(seen.addresses)) or 'none'}{is_swapped}",
            "put ssh_hosts into replica order, or correct the address in the env file",
        )
    if seen.owner not in ("", layout.USER):
        _refuse(
            index,
            f"uid {layout.UID} to be free, or {layout.USER}'s",
            f"{seen.owner}'s",
            "give that user another uid: data files in containers belong to this number",
        )


def _check_port(deployment: Deployment, index: int, seen: Observation) -> None:
    replica = deployment.cluster.replicas[index]
    is_held = seen.listening & (_ANY | {str(replica.ip)})
    if is_held and not pid_of(deployment, seen):
        _refuse(
            index,
            f"{replica.address} to be free",
            f"{seen.holder or 'a process'} listening",
            f"stop it, unless it is another cluster's replica; or set another "
            f"{model.PREFIX}{index}_PORT, and change ADDRESSES with it",
        )


def _check_disk(deployment: Deployment, index: int, seen: Observation) -> None:
    directory = deployment.settings.data_dir if deployment.settings else ""
    if seen.filesystem in VOLATILE:
        _refuse(
            index,
            f"{directory} on a disk",
            f"{seen.filesystem}, which is memory",
            "mount a disk there, or set data_dir in the inventory",
        )
    if not seen.has_direct_io:
        _refuse(
            index,
            f"direct I/O under {directory}",
            f"none on {seen.filesystem}",
            "use ext4 or XFS on a disk of its own",
        )
    if not seen.data_files and seen.disk_bytes < DATA_FILE_BYTES:
        _refuse(
            index,
            f"{DATA_FILE_BYTES / 1024**3:.2f} GiB free under {directory}",
            f"{seen.disk_bytes / 1024**3:.2f} GiB",
            "free some, or set data_dir to a larger disk",
        )


def _check_memory(deployment: Deployment, index: int, seen: Observation) -> None:
    if pid_of(deployment, seen) or deployment.engine == "emulator":
        return
    needed = model.memory_bytes(deployment.cluster)
    if seen.memory_bytes < needed:
        _refuse(
            index,
            f"{needed / 1024**3:.1f} GiB of memory free",
            f"{seen.memory_bytes / 1024**3:.1f} GiB",
            f"free some, or lower {model.PREFIX}CACHE_GRID",
        )


def _check_separation(deployment: Deployment, seen: Mapping[int, Observation]) -> None:
    """Two names can be one machine: then it has both replicas' addresses."""
    if deployment.settings and deployment.settings.development:
        return
    for index, observation in seen.items():
        for replica in deployment.cluster.replicas:
            if replica.index != index and str(replica.ip) in observation.addresses:
                _refuse(
                    index,
                    "a server of its own: one failure must not take two replicas",
                    f"one that is replica {replica.index}'s too",
                    "name another server, or set development=True for a rehearsal",
                )


def _check_peers(deployment: Deployment, seen: Mapping[int, Observation]) -> None:
    """Each reaches each, so both ways; a port that is refused was reached."""
    for index, observation in seen.items():
        for replica in deployment.cluster.replicas:
            if replica.index != index and observation.peers.get(replica.address) == "silent":
                _refuse(
                    index,
                    f"to reach replica {replica.index} at {replica.address}",
                    "no answer within 3 s",
                    "let the servers reach one another's ports, in every firewall between them",
                )


def _check_clocks(deployment: Deployment, seen: Mapping[int, Observation]) -> None:
    if not (deployment.settings and deployment.settings.check_clock):
        return
    offsets = {index: observation.clock_offset_s for index, observation in seen.items()}
    first, last = min(offsets, key=offsets.__getitem__), max(offsets, key=offsets.__getitem__)
    spread = offsets[last] - offsets[first]
    if spread > CLOCK_SPREAD_MAX_S:
        _refuse(
            last,
            f"a clock within {CLOCK_SPREAD_MAX_S:g} s of replica {first}'s",
            f"one {spread:.1f} s ahead",
            "set both right, and let a time service keep them so",
        )


def _version(text: str) -> tuple[int, int]:
    match = _NUMBERS.search(text)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _refuse(index: int, expected: str, found: str, fix: str) -> NoReturn:
    raise Refusal(f"replica {index}'s server: expected {expected}, found {found}. Fix: {fix}")
