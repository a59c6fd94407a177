"""Known troubles: the words by which they show, their cause, and the fix. Pure.

The words are those of TigerBeetle 0.17.9, Docker 20.10 to 28 and Compose 2.26, as really seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cluster.config import PREFIX, Replica
from cluster.runtimes.base import Diagnosis
from cluster.runtimes.container import Container


@dataclass(frozen=True)
class _Known:
    key: str
    pattern: re.Pattern[str]
    cause: str
    fix: str


def _known(key: str, pattern: str, cause: str, fix: str) -> _Known:
    return _Known(key, re.compile(pattern), cause, fix)


#: In order of precedence: what a line says exactly comes before what it may mean.
KNOWN = (
    _known(
        "rlimit",
        r"error setting rlimits?\b.*|failed to set rlimit.*",
        "the engine may not grant the memlock limit (no CAP_SYS_RESOURCE)",
        f"set {PREFIX}MEMLOCK to the engine's own limit in bytes, such as 8388608; the image's "
        "file capability locks memory all the same",
    ),
    _known(
        "io-uring",
        r"io_uring is not available",
        "io_uring is refused, by a seccomp profile or by the kernel (the server blames the wrong "
        "one: for seccomp it names the sysctl)",
        f"set {PREFIX}SECCOMP to files/tigerbeetle/seccomp.json, and kernel.io_uring_disabled to 0",
    ),
    _known(
        "memlock-zero",
        r"error: SystemResources",
        "a limit leaves the server nothing to start with: memlock is 0, or next to it",
        f"set {PREFIX}MEMLOCK to -1, or to at least 4194304",
    ),
    _known(
        "no-ipc-lock",
        r"exec:? \"?/tigerbeetle\"?.*not permitted",
        "the server's file capability asks for IPC_LOCK, and the container does not have it",
        "keep `cap_add: [IPC_LOCK]`; with `docker run` add --cap-add IPC_LOCK",
    ),
    _known(
        "superblock",
        r"superblock (?:not found|quorum lost)|data file inode size was truncated or corrupted",
        "this replica's data file is damaged beyond what it repairs by itself",
        "keep the others running, and make it again from them: make recover REPLICA=N CONFIRM=yes; "
        "never format it anew",
    ),
    _known(
        "unformatted",
        r"panic: Path does not exist|error: FileNotFound|expected a data file, found none",
        "there is no data file: the volumes are not formatted",
        "for a new cluster: make compose-tb-format; for a file that was there before: "
        "make recover REPLICA=N",
    ),
    _known(
        "exchanged-file",
        r"error: AddressNotAvailable",
        "the replica cannot listen on the address that its data file's replica index says: the "
        "file is another replica's, or the container has another IP",
        "put each file into its own volume; docker compose up --force-recreate restores the IP",
    ),
    _known(
        "owner",
        r"error: AccessDenied",
        "the server may not open its data file: the volume has another owner than uid 10001",
        "docker run --rm --user 0 --entrypoint chown --volume VOLUME:/data "
        "tigerbeetle-custom:latest -R 10001:10001 /data",
    ),
    _known(
        "locked-file",
        r"another process holds the data file lock",
        "a second server uses the same data file",
        "stop it: docker ps --filter volume=VOLUME names it",
    ),
    _known(
        "bad-address",
        r"--addresses: invalid IPv4 or IPv6 address.*",
        "the address list holds something that is not IP:PORT; host names are not resolved",
        f"correct {PREFIX}ADDRESSES",
    ),
    _known(
        "port-taken",
        r"bind: address already in use|port is already allocated",
        "another program listens on a port that a replica publishes",
        "stop it (ss --listening --tcp --processes names it), or change the port in "
        "env/tigerbittle.env",
    ),
    _known(
        "ip-taken",
        r"Address already in use",
        "another container holds the replica's IP: a one-off `compose run`, or a running replica",
        "make compose-tb-down, then again",
    ),
    _known(
        "subnet-taken",
        r"Pool overlaps with other one on this address space",
        "another Docker network has our subnet",
        f"choose another {PREFIX}SUBNET, with {PREFIX}X_IP and {PREFIX}ADDRESSES in it, or remove "
        "that network",
    ),
    _known("no-image", r"[Nn]o such image.*", "the image is not here", "make compose-tb-build"),
    _known(
        "no-netcat",
        r'exec: \\?"nc\\?": executable file not found',
        "the image has no nc: the health check cannot run, whatever the replica does",
        "make compose-tb-build, then make compose-tb-up",
    ),
    _known(
        "disk-full",
        r"no space left on device|error: (?:NoSpaceLeft|DiskQuota)",
        "the disk is full",
        "free space (docker system df), then make compose-tb-up",
    ),
    _known(
        "mlock",
        r"warning\(mlock\): .*",
        "the replica's memory is not locked, so it may be swapped, past its own checksums",
        "keep `cap_add: [IPC_LOCK]` and the built image's file capability: make compose-tb-build",
    ),
)


def of_container(container: Container | None, replica: Replica, said: str) -> list[Diagnosis]:
    """What is wrong with one replica's container; ``said`` is the end of its log."""
    if container is None:
        return [_MISSING]
    if container.state == "paused":
        return [Diagnosis("paused", container.state, "it was paused", "docker unpause it")]
    found = []
    if container.error or container.state == "restarting":
        found.append(of_text(f"{container.error}\n{said}"))
    if container.is_oom_killed:
        found.append(_OUT_OF_MEMORY)
    if container.state in ("exited", "created", "dead", "restarting") and not any(found):
        found.append(_ended(container))
    if container.pid:
        found += _running(container, replica, said)
    return [diagnosis for diagnosis in found if diagnosis]


def _running(container: Container, replica: Replica, said: str) -> list[Diagnosis | None]:
    found: list[Diagnosis | None] = []
    if str(replica.ip) not in container.ips:
        found.append(
            Diagnosis(
                "wrong-ip",
                f"{', '.join(container.ips) or 'no network'}",
                f"the container is not on the network at {replica.ip}, where its peers look for it",
                "docker compose up --force-recreate, or make compose-tb-down and compose-tb-up",
            )
        )
    elif known := of_text(container.last_check):
        found.append(known)
    elif container.health == "unhealthy":
        found.append(
            Diagnosis(
                "unhealthy",
                container.last_check or "unhealthy",
                "the replica does not listen, or its health check looks elsewhere",
                "read its log: make compose-tb-logs CONTAINER=" + container.name,
            )
        )
    elif container.health == "starting" and ": listening on " not in said:
        found.append(
            Diagnosis(
                "starting",
                "health: starting",
                "the replica faults in its memory before it listens: 1 to 23 s were measured",
                "wait: up to a minute is within its start period",
            )
        )
    if "warning(mlock)" in said:
        found.append(of_text(next(x for x in said.splitlines() if "warning(mlock)" in x)))
    return found


def _ended(container: Container) -> Diagnosis:
    evidence = f"{container.state}, exit code {container.exit_code}"
    if container.state == "restarting" and container.exit_code == 137:
        # SIGKILL, and not by `docker kill`, after which Docker starts nothing again. The engine
        # does not always see that it was the kernel, so OOMKilled may be missing.
        return replace(_OUT_OF_MEMORY, evidence=evidence)
    if container.state == "restarting":
        return Diagnosis(
            "restarting",
            evidence,
            "the server ends again and again, for a reason not known here",
            f"read its last words: docker logs {container.name}",
        )
    return Diagnosis(
        "stopped",
        evidence,
        "it was stopped or killed by hand: Docker does not start such a container again",
        "make compose-tb-up",
    )


_MISSING = Diagnosis("no-container", "no container", "it was never started", "make compose-tb-up")
_OUT_OF_MEMORY = Diagnosis(
    "out-of-memory",
    "OOMKilled",
    "the kernel killed it: it needs more than its memory limit, all of it from the start",
    f"raise {PREFIX}MEMORY_LIMIT, or lower {PREFIX}CACHE_GRID",
)


def of_text(text: str) -> Diagnosis | None:
    """The first known trouble that a log or an engine's message shows."""
    for known in KNOWN:
        match = known.pattern.search(text)
        if match:
            return Diagnosis(known.key, match[0].strip(), known.cause, known.fix)
    return None
