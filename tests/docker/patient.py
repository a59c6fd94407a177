"""A cluster that is examined: what the doctor finds in it, now or before long, and its status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.health.status import Status
from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import DockerSandbox, docker

#: Docker restarts a failing replica after 0.1, 0.2, 0.4 ... s; the first health check is at 10 s.
SHOWS_WITHIN_S = 400
#: After so many, 1.6 s.
RESTARTS = 4


def findings(sandbox: DockerSandbox, **environ: str) -> dict[str, str]:
    """Key → text of what the doctor finds now."""
    with sandbox.having(**environ):
        done = sandbox.call("doctor", "--json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert (done.returncode == 0) == (not found["findings"] and found["commits"])
    return {finding["key"]: finding["text"] for finding in found["findings"]}


def until_found(sandbox: DockerSandbox, key: str, **environ: str) -> str:
    """The text of a finding, once it shows."""

    def look() -> tuple[bool, str]:
        found = findings(sandbox, **environ)
        return key in found, found.get(key, str(found))

    text = wait_until(look, what=f"the finding {key}", timeout_s=SHOWS_WITHIN_S, interval_s=0.5)
    assert "Fix: " in text
    return text


def until_failed(sandbox: DockerSandbox) -> None:
    """Wait until Docker lets seconds pass before it starts replica 0 again.

    Only then is there time to see it between two starts. It costs less than to examine it before.
    """

    def look() -> tuple[bool, str]:
        times = int(sandbox.inspect(0)["RestartCount"])
        return times >= RESTARTS, f"{times} restarts"

    wait_until(look, what="replica 0 to fail", timeout_s=SHOWS_WITHIN_S)


def until_well(sandbox: DockerSandbox) -> None:
    """Wait until the doctor finds nothing: the first health check is long after a start."""

    def look() -> tuple[bool, str]:
        found = findings(sandbox)
        return not found, str(found)

    what = "the doctor to find nothing"
    wait_until(look, what=what, timeout_s=SHOWS_WITHIN_S, interval_s=2)


def status(sandbox: DockerSandbox, **environ: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `make status`, and its answer, which must keep the schema."""
    with sandbox.having(**environ):
        done = sandbox.call("status", "--json")
    Status.model_validate_json(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


@contextmanager
def mended(sandbox: DockerSandbox, *indexes: int) -> Iterator[None]:
    """What the block breaks of these replicas is made anew: their containers, never their data."""
    yield
    if indexes:
        docker("rm", "--force", *(sandbox.names[index] for index in indexes))
    done = sandbox.compose("up", "--detach", "--no-build")
    assert done.returncode == 0, done.stderr

    def look() -> tuple[bool, str]:
        answer = sandbox.call("status", "--no-canary")
        return answer.returncode == 0, answer.stdout

    wait_until(look, what="all replicas to be normal", timeout_s=SHOWS_WITHIN_S, interval_s=0.5)
