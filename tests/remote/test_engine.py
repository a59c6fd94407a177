"""The test bed's servers with an engine: each has its own, and nothing in it."""

from __future__ import annotations

import json

import pytest

from tests.docker.sandbox import docker
from tests.remote.bed import Bed

pytestmark = [pytest.mark.remote, pytest.mark.long]


def test_the_engine_inside_is_real_and_its_own(engine_bed: Bed) -> None:
    for host in engine_bed.hosts:
        info = json.loads(host.read("docker info --format '{{json .}}'"))
        assert info["Driver"] == "overlay2"
        assert info["Images"] == 0
        assert host.read("docker compose version --short").startswith("2.")
    ids = {host.read("docker info --format '{{.ID}}'") for host in engine_bed.hosts}
    assert len(ids) == 3
    assert docker("info", "--format={{.ID}}").stdout not in ids
