"""The images that test hosts are made of, built when their inputs change."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

from tests.docker.sandbox import docker
from tests.leases import alone

#: What the hosts are built from: the first that is here. None is pulled.
ROOTS = ("debian-local:bookworm", "debian:bookworm", "debian:bookworm-slim")

#: `bare`: systemd, sshd and what a rented server has. `engine`: Debian's Docker engine as well.
#: `monitor`: the packages of a monitoring host, downloaded and not installed.
Flavour = Literal["bare", "engine", "monitor"]

_DIRECTORY = Path(__file__).parent / "host"
_NAME = "wallet-service-test-host"
_BUILD_TIMEOUT_S = 1700


@cache
def root() -> str | None:
    """The Debian image that is here to build from, or None."""
    return next((r for r in ROOTS if docker("image", "inspect", r).returncode == 0), None)


@cache
def of(flavour: Flavour) -> str:
    """The image of a flavour, built when its inputs have changed. Needs Debian's packages then."""
    base = root()
    assert base, f"none of {', '.join(ROOTS)} is here"
    base_id = docker("image", "inspect", "--format={{.Id}}", base).stdout
    inputs = [base_id.encode(), *(f.read_bytes() for f in sorted(_DIRECTORY.iterdir()))]
    image = f"{_NAME}:{flavour}-{sha256(b'|'.join(inputs)).hexdigest()[:12]}"
    with alone("image-of-test-hosts"):
        if docker("image", "inspect", image).returncode != 0:
            built = docker(
                "build",
                f"--target={flavour}",
                f"--build-arg=ROOT={base}",
                f"--tag={image}",
                str(_DIRECTORY),
                timeout_s=_BUILD_TIMEOUT_S,
            )
            assert built.returncode == 0, built.stderr[-3000:]
    return image
