"""Known troubles: the words by which they show, their cause, and the fix. Pure.

The list is data, ``diagnoses.toml``; here is what a container's own state shows.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cluster.config import PREFIX, Replica
from cluster.runtimes.base import Diagnosis, with_last_line
from cluster.runtimes.container import Container

CATALOGUE = Path(__file__).with_suffix(".toml")


class Known(NamedTuple):
    """An entry of the catalogue."""

    key: str
    pattern: str
    cause: str
    fix: str


#: In order of precedence.
KNOWN = tuple(
    Known(**entry) for entry in tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["known"]
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
        found.append(_ended(container, said))
    if container.pid:
        found += _running(container, replica, said)
    return [diagnosis for diagnosis in found if diagnosis]


def _running(container: Container, replica: Replica, said: str) -> Iterator[Diagnosis | None]:
    if str(replica.ip) not in container.ips:
        yield Diagnosis(
            "wrong-ip",
            f"{', '.join(container.ips) or 'no network'}",
            f"the container is not on the network at {replica.ip}, where its peers look for it",
            "docker compose up --force-recreate, or make compose-tb-down and compose-tb-up",
        )
    elif known := of_text(container.last_check):
        yield known
    elif container.health == "unhealthy":
        yield Diagnosis(
            "unhealthy",
            container.last_check or "unhealthy",
            "the replica does not listen, or its health check looks elsewhere",
            "read its log: make compose-tb-logs CONTAINER=" + container.name,
        )
    elif container.health == "starting" and ": listening on " not in said:
        yield Diagnosis(
            "starting",
            "health: starting",
            "the replica faults in its memory before it listens: 1 to 23 s were measured",
            "wait: up to a minute is within its start period",
        )
    if "warning(mlock)" in said:
        yield of_text(next(x for x in said.splitlines() if "warning(mlock)" in x))


def _ended(container: Container, said: str) -> Diagnosis:
    evidence = with_last_line(f"{container.state}, exit code {container.exit_code}", said)
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
        if match := re.search(known.pattern, text):
            return Diagnosis(known.key, match[0].strip(), known.cause, known.fix)
    return None
