"""A cluster that is examined: what the doctor finds in it, now or before long."""

from __future__ import annotations

import json

from cluster.tigerbeetle.waiting import wait_until
from tests.docker.sandbox import DockerSandbox

#: Docker restarts a failing replica after 0.1, 0.2, 0.4 ... s; the first health check is at 10 s.
SHOWS_WITHIN_S = 40


def findings(sandbox: DockerSandbox, **environ: str) -> dict[str, str]:
    """Key → text of what the doctor finds now."""
    with sandbox.having(**environ):
        done = sandbox.run("python", "-m", "cluster", "doctor", "--json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert (done.returncode == 0) == (not found["findings"] and found["commits"])
    return {finding["key"]: finding["text"] for finding in found["findings"]}


def until_found(sandbox: DockerSandbox, key: str, **environ: str) -> str:
    """The text of a finding, once it shows."""

    def look() -> tuple[bool, str]:
        found = findings(sandbox, **environ)
        return key in found, found.get(key, str(found))

    text = wait_until(look, what=f"the finding {key}", timeout_s=SHOWS_WITHIN_S)
    assert "Fix: " in text
    return text


def until_well(sandbox: DockerSandbox) -> None:
    """Wait until the doctor finds nothing: what the test before has broken is whole again."""

    def look() -> tuple[bool, str]:
        found = findings(sandbox)
        return not found, str(found)

    wait_until(look, what="the doctor to find nothing", timeout_s=SHOWS_WITHIN_S)
