"""One test bed per flavour and module; the images are built once and kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.bed import Bed, make_bed


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
