"""The Docker engine: installed only when asked (`install_docker`)."""

from __future__ import annotations

from io import StringIO

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.facts.server import LinuxDistribution, LinuxDistributionDict, Which
from pyinfra.operations import apt, files

from tasks.support.here import is_yes

#: Debian and Ubuntu release → the packages that bring engine, client, Compose v2 and buildx.
PACKAGES = {
    ("Debian", 12): ["docker.io", "docker-compose", "docker-buildx"],
    ("Debian", 13): ["docker.io", "docker-cli", "docker-compose", "docker-buildx"],
    ("Ubuntu", 22): ["docker.io", "docker-compose-v2", "docker-buildx"],
    ("Ubuntu", 24): ["docker.io", "docker-compose-v2", "docker-buildx"],
}

#: Debian 12 has only Compose v1: v2 is taken from Debian 13, and nothing else is.
_SOURCE = "deb http://deb.debian.org/debian trixie main\n"
_PINS = """\
Package: *
Pin: release n=trixie
Pin-Priority: -10

Package: docker-compose docker-buildx
Pin: release n=trixie
Pin-Priority: 500
"""
_TRIXIE = (
    ("Know Debian 13's packages", _SOURCE, "sources.list.d/docker-compose.list"),
    ("Take Compose v2 and buildx from them alone", _PINS, "preferences.d/docker-compose"),
)


@deploy("Install Docker when asked to")
def install_if_asked() -> None:
    """For `pyinfra --data install_docker=yes ...`; otherwise nothing is installed."""
    if is_yes("install_docker"):
        install()


@deploy("Install Docker")
def install() -> None:
    """The distribution's engine, Compose v2 and buildx. Debian and Ubuntu only."""
    packages = packages_of(host.get_fact(LinuxDistribution))
    if "docker-compose" in packages and "docker-cli" not in packages:
        for name, text, path in _TRIXIE:
            files.put(name=name, src=StringIO(text), dest=f"/etc/apt/{path}", mode="644")
    apt.packages(
        name="Install the engine, Compose v2 and buildx",
        packages=packages,
        update=not host.get_fact(Which, command="dockerd"),
    )


def packages_of(distribution: LinuxDistributionDict) -> list[str]:
    """The packages for a distribution. Raises DeployError for others than Debian and Ubuntu."""
    name, major = distribution["name"] or "?", distribution["major"] or 0
    try:
        return PACKAGES[(name, int(major))]
    except KeyError:
        known = ", ".join(f"{n} {m}" for n, m in PACKAGES)
        raise DeployError(
            f"install_docker: expected one of {known}, found {name} {major}. "
            "Fix: install Docker as docs.docker.com says for this system"
        ) from None
