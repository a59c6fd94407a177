"""Our image on servers with Docker, built there instead of shipped. With the emulator's base.

No registry can be had in a test: what an engine would pull is loaded into it beforehand.
"""

from __future__ import annotations

import subprocess

import pytest

from cluster.runtimes import image
from tests.docker.sandbox import docker, has_base
from tests.remote.bed import Bed
from tests.remote.machine import Machine
from tests.remote.site import Site, changes, said
from tests.remote.test_refusals import shadow, unshadow

pytestmark = [
    pytest.mark.remote,
    pytest.mark.long,
    pytest.mark.random_order(disabled=True),  # no replica runs before the second
]


@pytest.fixture(scope="module")
def site(engine_bed: Bed) -> Site:
    """Servers whose engines have a base that needs no packages, hence no network, to build on."""
    if not has_base("emulator"):
        pytest.skip("no base image of the emulator: .ci/provision-docker base")
    made = Site(engine_bed, runtime="docker").with_emulator()
    made.write(image_from="build")
    made.build_image()
    cluster = made.deployment.cluster
    for host in engine_bed.hosts:
        load(host, image.name(cluster))
        host.read(f"docker tag {image.name(cluster)} {image.base(cluster)}")
        host.read(f"docker rmi --no-prune {image.name(cluster)}")
    return made


def load(host: Machine, name: str) -> None:
    """Put an image of this machine's engine into the host's own."""
    into = f"docker save {name} | docker exec --interactive {host.container} docker load"
    subprocess.run(["sh", "-c", into], check=True, capture_output=True, timeout=1200)


def test_a_build_that_fails_on_one_server_stops_the_deploy_before_any_replica(site: Site) -> None:
    host = site.bed.hosts[1]
    refusing = 'case "$1" in build) echo no base >&2; exit 1;; esac; exec /usr/bin/docker "$@"'
    shadow(host, "docker", refusing)
    try:
        done = site.up(bootstrap=True)
    finally:
        unshadow(host, "docker")
    assert done.returncode != 0
    assert "no base" in said(done)
    for each in site.bed.hosts:
        assert each.read("docker ps --all --quiet") == ""
        assert each.read("find /var/lib/tigerbeetle -name '*.tigerbeetle'") == ""


def test_each_server_builds_it_once_and_runs_it(site: Site) -> None:
    done = site.up(bootstrap=True)
    assert done.returncode == 0, said(done)[-4000:]
    name = image.name(site.deployment.cluster)
    here = docker("image", "inspect", "--format={{.Id}}", name).stdout
    for index, host in enumerate(site.bed.hosts):
        built = host.read(f"docker image inspect --format='{{{{.Id}}}}' {name}")
        assert built != here, "it was shipped"
        assert host.read(f"docker inspect --format='{{{{.Image}}}}' tigerbeetle-{index}") == built
    assert changes(site.up()) == []
    status = site.run("make", "status")
    assert status.returncode == 0, said(status)


def test_verify_finds_the_limits_that_the_servers_engines_may_grant(site: Site) -> None:
    """Engines in containers that may raise none take their own, and the row tries that for real."""
    rows = ["tests/infra/docker", "-k", "limit", "--inventory", str(site.inventory)]
    done = site.run("pytest", *rows)
    assert done.returncode == 0, said(done)[-4000:]
    assert " passed" in said(done)
