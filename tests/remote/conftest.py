"""One test bed per flavour and module; the images are built once and kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leases import memory
from tests.remote.bed import Bed, make_bed

#: Of a cluster of genuine replicas, whichever hosts they are on.
REPLICAS = 3


@pytest.fixture(scope="module", autouse=True)
def room(request: pytest.FixtureRequest) -> Iterator[None]:
    """Memory for the genuine replicas of this module, from before its bed is made."""
    with memory(REPLICAS if request.node.get_closest_marker("genuine") else 0):
        yield


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Bare servers: systemd, sshd, and nothing of ours."""
    with make_bed("bare") as made:
        yield made


@pytest.fixture(scope="module")
def engine_bed() -> Iterator[Bed]:
    """Servers that have a Docker engine already."""
    with make_bed("engine") as made:
        yield made
