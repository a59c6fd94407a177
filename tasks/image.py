"""The image of the replicas: built when its inputs have changed."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import python

from cluster import compose, config, image
from tasks._host import guarded


@deploy("Build the image")
def build() -> None:
    """Build tigerbeetle-custom, unless the one here was built from the same inputs."""
    with guarded():
        cluster = config.load()
        if image.is_current(cluster):
            host.noop(f"{image.name(cluster)} is up to date")
            return
    python.call(name=f"Build {image.name(cluster)}", function=_build, cluster=cluster)


def _build(cluster: config.Cluster) -> None:
    with guarded():
        compose.build(cluster)
