"""Installing the engine with pyinfra, on a bare Debian in a container; and what must be refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pyinfra.api.exceptions import DeployError
from pyinfra.facts.server import LinuxDistributionDict

from cluster import REPOSITORY
from tasks.docker import packages_of
from tests.docker.sandbox import docker

BARE = "debian-local:bookworm"
PYINFRA = str(Path(sys.executable).parent / "pyinfra")


def install(image: str) -> tuple[str, str]:
    """Run the task in a container of ``image``: what pyinfra said, and the image that came out."""
    done = subprocess.run(
        [PYINFRA, "--yes", f"@docker/{image}", "tasks.docker.install"],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=1700,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    made = re.search(r"image ID: (\w+)", said)
    assert made
    return said, made[1]


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.long
def test_a_bare_debian_gets_an_engine_once_and_compose_v2_from_the_next_release_alone() -> None:
    if docker("image", "inspect", BARE).returncode != 0:
        pytest.skip(f"no {BARE} image: .ci/provision-docker base")
    _, first = install(BARE)
    second = ""
    try:
        asked = "dockerd --version && docker compose version && dpkg --status libc6 | grep ^Version"
        shown = docker("run", "--rm", first, "sh", "-c", asked)
        assert shown.returncode == 0, shown.stderr
        assert re.search(r"^Docker version \d", shown.stdout, re.M)
        assert re.search(r"^Docker Compose version 2\.", shown.stdout, re.M)
        assert re.search(r"^Version: 2\.36-", shown.stdout, re.M)  # Debian 12's own libc6
        again, second = install(first)
        total = re.search(r"Grand total +(\d+) +(\S+) +(\S+) +(\d+)", again)
        assert total
        assert total[2] == "-"
        assert total[4] == total[1]  # all unchanged
    finally:
        docker("rmi", "--force", *filter(None, (second, first)))


def distribution(name: str | None, major: int | None) -> LinuxDistributionDict:
    return {"name": name, "major": major, "minor": None, "release_meta": {}}


@pytest.mark.parametrize(
    ("name", "major"), [("Debian", 11), ("Ubuntu", 18), ("Fedora", 40), (None, None)]
)
def test_other_systems_are_refused_by_name(name: str | None, major: int | None) -> None:
    with pytest.raises(DeployError, match=r"expected one of Debian 12, .*, found .*\. Fix: "):
        packages_of(distribution(name, major))


@pytest.mark.parametrize(
    ("name", "major"), [("Debian", 12), ("Debian", 13), ("Ubuntu", 22), ("Ubuntu", 24)]
)
def test_every_known_system_gets_an_engine_and_compose_v2(name: str, major: int) -> None:
    packages = packages_of(distribution(name, major))
    assert "docker.io" in packages
    assert {"docker-compose", "docker-compose-v2"} & set(packages)
