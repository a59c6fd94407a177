"""The image of the replicas: built when its inputs have changed; on servers, shipped or built."""

from __future__ import annotations

import shlex
from pathlib import Path

from gevent.lock import BoundedSemaphore
from pyinfra import host
from pyinfra.api import FactBase, deploy
from pyinfra.operations import files

from cluster import REPOSITORY, config
from cluster.config.deployment import Deployment
from cluster.runtimes import compose, image, layout
from tasks.support.act import call, shell
from tasks.support.here import deployment_here, guarded

_archives: list[Path] = []
_packing = BoundedSemaphore()


@deploy("Build the image")
def build() -> None:
    """Build tigerbeetle-custom, unless the one here was built from the same inputs."""
    with guarded():
        cluster = config.load()
        if image.is_current(cluster):
            host.noop(f"{image.name(cluster)} is up to date")
            return
    call(f"Build {image.name(cluster)}", _build, cluster=cluster)


@deploy("Bring the image")
def bring() -> None:
    """Have our image on the server: shipped from here, or built there from the same inputs."""
    deployment = deployment_here()
    cluster = deployment.cluster
    if cluster.seccomp != "unconfined":
        files.put(
            name="Write the seccomp profile",
            src=str(REPOSITORY / cluster.seccomp),
            dest=layout.seccomp_file(),
            mode="644",
        )
    with guarded():
        wanted = image.identity(deployment)
    label = image.INPUTS_LABEL
    found = host.get_fact(ImageOnServer, image=image.name(cluster), label=label)
    if wanted in found:
        host.noop(f"{image.name(cluster)} is there")
        return
    directory = f"{layout.ETC}/image"
    files.directory(name="Have a directory for the image", path=directory, mode="700")
    if image.is_shipped(deployment):
        archive = f"{directory}/image.tar.gz"
        packed = _packed(deployment)
        files.put(name=f"Ship {image.name(cluster)}", src=str(packed), dest=archive, mode="600")
        shell(f"Load {image.name(cluster)}", f"docker load --input {archive}", f"rm {archive}")
        return
    files.put(
        name="Put the Dockerfile there",
        src=str(image.DOCKERFILE),
        dest=f"{directory}/Dockerfile",
        mode="644",
    )
    command = image.build_command(cluster, wanted, directory)
    shell(f"Build {image.name(cluster)}", command, _timeout=image.PULL_TIMEOUT_S)


class ImageOnServer(FactBase[str]):
    """Id and label of an image on the host, in one line; empty without one."""

    def command(self, image: str, label: str) -> str:
        """``docker image inspect`` of it."""
        form = '{{.Id}} {{index .Config.Labels "%s"}}' % label  # noqa: UP031 - braces
        return f"docker image inspect --format {shlex.quote(form)} {image} 2>/dev/null || true"

    @staticmethod
    def default() -> str:
        """No image."""
        return ""


def _packed(deployment: Deployment) -> Path:
    """Packed once for all servers, whose tasks come here at the same time."""
    with _packing, guarded():
        if not _archives:
            _archives.append(image.packed(deployment.cluster, deployment.state_dir))
    return _archives[0]


def _build(cluster: config.Cluster) -> None:
    with guarded():
        compose.build(cluster)
