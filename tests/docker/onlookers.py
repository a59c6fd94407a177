"""Who looks at a cluster from outside: the checks of `make verify`, and an application."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.config import PREFIX
from tests.docker.sandbox import DockerSandbox, docker

BIN = Path(sys.executable).parent


def assert_every_check_passes(deployed: DockerSandbox) -> None:
    """For whoever sees no process of a container.

    As with Docker Desktop, an engine elsewhere, and an ordinary user of the engine. An application
    on the network, as the documentation connects it, is nothing wrong.
    """
    verify = [str(BIN / "pytest"), "tests/infra"]
    with application(deployed) as app:
        reached = docker(
            "exec", app, "nc", "-z", deployed.environ[f"{PREFIX}0_IP"], str(deployed.ports[0])
        )
        verified = deployed.run(*unseeing(), *verify, "--inventory", deployed.inventory)
    assert reached.returncode == 0
    assert verified.returncode == 0, verified.stdout[-4000:] + verified.stderr[-1000:]
    assert " skipped" not in verified.stdout


@contextmanager
def application(deployed: DockerSandbox) -> Iterator[str]:
    """A container of somebody else's, on the replicas' network."""
    name = f"{deployed.names[0]}-app"
    network = next(iter(deployed.inspect(0)["NetworkSettings"]["Networks"]))
    image = deployed.inspect(0)["Image"]
    run = ("run", "--detach", "--rm", "--name", name, "--network", network)
    assert docker(*run, "--entrypoint=sleep", image, "600").returncode == 0
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def unseeing() -> list[str]:
    """Runs a command in a namespace of its own, and as nobody in particular, as far as root can."""
    socket = Path("/var/run/docker.sock")
    if os.geteuid() != 0 or not socket.exists():
        return []
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", f"--groups={socket.stat().st_gid}"]
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    for way in ([*apart, *nobody], apart):  # root's own Python may be out of nobody's reach
        tried = subprocess.run([*way, sys.executable, "-c", program], timeout=60)
        if tried.returncode == 0:
            return way
    return []
