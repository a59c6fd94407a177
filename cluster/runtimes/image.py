"""The image of our replicas: what it is built from, and whether the one here is that."""

from __future__ import annotations

import gzip
import hashlib
import shlex
import shutil
import tempfile
from pathlib import Path

from cluster import REPOSITORY, config
from cluster.config import Cluster
from cluster.config.deployment import Deployment, Engine
from cluster.config.env_file import record
from cluster.refusal import Refusal, last_line
from cluster.runtimes import docker_engine

DOCKERFILE = REPOSITORY / "files" / "tigerbeetle" / "Dockerfile"
INPUTS_LABEL = "wallet-service.inputs"
INPUTS_VARIABLE = "WALLET_SERVICE_IMAGE_INPUTS"

#: The official image is 20 MB; a slow line needs minutes, not an hour.
PULL_TIMEOUT_S = 600
_ASK_TIMEOUT_S = 15


def name(cluster: Cluster) -> str:
    """What the Compose file runs."""
    return f"{cluster.custom_image}:{cluster.release}"


def base(cluster: Cluster) -> str:
    """What it is built from, by digest too once one is recorded."""
    digest = f"@{cluster.image_digest}" if cluster.image_digest else ""
    return f"{cluster.image}:{cluster.release}{digest}"


def engine_of(cluster: Cluster) -> Engine:
    """Which engine that base holds."""
    return "emulator" if cluster.is_emulator_image else "tigerbeetle"


def require(cluster: Cluster) -> None:
    """Raises Refusal where our image is not here."""
    if id_of(name(cluster)) is None:
        wanted = f"{name(cluster)} here"
        raise Refusal("image", expected=wanted, found="none", fix="make compose-tb-build")


def id_of(reference: str) -> str | None:
    """The id of an image here; None when it is absent. Raises Refusal."""
    found = docker_engine.found(["docker", "image", "inspect", "--format", "{{.Id}}", reference])
    return None if found is None else found.strip()


def inputs(cluster: Cluster, base_id: str, dockerfile: Path = DOCKERFILE) -> str:
    """A fingerprint of all that the image is made of: equal inputs need no build."""
    parts = [dockerfile.read_text(), base(cluster), base_id, cluster.release]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_current(cluster: Cluster) -> bool:
    """True when the image here was built from what is configured now. Raises Refusal."""
    base_id = id_of(base(cluster))
    if base_id is None:
        # Built elsewhere and brought here (`docker save`, `docker load`): its base stays there.
        return label(cluster, "org.opencontainers.image.base.name") == base(cluster)
    return label(cluster, INPUTS_LABEL) == inputs(cluster, base_id)


def label(cluster: Cluster, key: str) -> str | None:
    """A label of our image; None when there is no image. Raises Refusal."""
    inspect = ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", name(cluster)]
    found = docker_engine.found(inspect)
    if found is None:
        return None
    return docker_engine.read(inspect, found, lambda labels: str((labels or {}).get(key, "")))


def is_obtainable(cluster: Cluster) -> bool:
    """True when our image or its base is here, or its registry has it. Raises Refusal."""
    if id_of(name(cluster)) or id_of(base(cluster)):
        return True
    try:
        asked = docker_engine.run(["docker", "manifest", "inspect", base(cluster)], _ASK_TIMEOUT_S)
    except Refusal:
        return False  # the registry did not answer in time
    return asked.returncode == 0


def pull_base(cluster: Cluster) -> None:
    """Bring the base here if it is absent. Raises Refusal when it cannot be had."""
    if id_of(base(cluster)) is not None:
        return
    done = docker_engine.run(["docker", "pull", base(cluster)], PULL_TIMEOUT_S)
    if done.returncode != 0:
        raise Refusal(
            f"{config.PREFIX}IMAGE: expected {base(cluster)} here or in its registry, found: "
            f"{last_line(done.stderr)}. Fix: check the network, {config.PREFIX}IMAGE, RELEASE and "
            "IMAGE_DIGEST; without a registry see docs/docker.md, Air gap"
        )


def build_variables(cluster: Cluster) -> dict[str, str]:
    """What the build is told beside the configuration. Raises Refusal without a base."""
    base_id = id_of(base(cluster))
    if base_id is None:
        wanted, fix = "the base image here", f"docker pull {base(cluster)}"
        raise Refusal(base(cluster), expected=wanted, found="none", fix=fix)
    return {INPUTS_VARIABLE: inputs(cluster, base_id)}


def pin(cluster: Cluster, env_file: Path) -> str:
    """Record the digest of the base that was really pulled; from then on it is enforced.

    One that is recorded already is checked against the registry, and stays. Raises Refusal.
    """
    pull_base(cluster)
    if cluster.image_digest:
        return cluster.image_digest
    reference = f"{cluster.image}:{cluster.release}"
    inspect = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", reference]
    found = docker_engine.json_of(inspect, lambda said: [one.partition("@") for one in said or []])
    digest = next((text for name, _, text in found if name == cluster.image), "")
    if not digest:
        raise Refusal(
            f"{config.PREFIX}IMAGE_DIGEST: expected a base that a registry gave, found "
            f"{base(cluster)} built or loaded here, which has no digest. Fix: docker rmi "
            f"{base(cluster)}, then again, over a connection you trust"
        )
    record(env_file, f"{config.PREFIX}IMAGE_DIGEST", digest)
    return digest


def check_shippable(cluster: Cluster) -> None:
    """Our image is here, from what is configured now. Raises Refusal."""
    if not is_current(cluster):
        raise Refusal(
            f"{name(cluster)}: expected it here, to be shipped, built from what is configured; "
            f'found none, or another. Fix: {_build_line(cluster)}, or image_from="build"'
        )


def _build_line(cluster: Cluster) -> str:
    """What builds this cluster's image here, where another one may be configured."""
    wanted = {
        "IMAGE": cluster.image,
        "IMAGE_DIGEST": cluster.image_digest,
        "CUSTOM_IMAGE": cluster.custom_image,
        "RELEASE": cluster.release,
    }
    here = config.read(environ={})
    other = {k: v for k, v in wanted.items() if v != here[f"{config.PREFIX}{k}"]}
    given = [f"{config.PREFIX}{k}={shlex.quote(v)}" for k, v in other.items()]
    return " ".join([*given, "make compose-tb-build"])


def is_shipped(deployment: Deployment) -> bool:
    """From here to the servers, whose engines build it otherwise."""
    return deployment.settings is not None and deployment.settings.image_from == "ship"


def identity(deployment: Deployment) -> str:
    """What the image on a server is known by: the id of the one here, or what it is built from.

    Raises Refusal when it is to be shipped and is not here.
    """
    cluster = deployment.cluster
    if not is_shipped(deployment):
        # The base's own id is known there alone; its name has the digest, once recorded.
        return inputs(cluster, base_id="")
    found = id_of(name(cluster))
    if found is None:
        fix = f"make up {deployment.named}"
        raise Refusal(name(cluster), expected="the image here", found="none", fix=fix)
    return found


def packed(cluster: Cluster, directory: Path) -> Path:
    """Our image as a compressed archive for ``docker load``, made anew. Raises Refusal."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as own:
        saved, small = Path(own, "image.tar"), Path(own, "image.tar.gz")
        docker_engine.stdout(["docker", "save", f"--output={saved}", name(cluster)], PULL_TIMEOUT_S)
        with saved.open("rb") as plain, gzip.open(small, "wb", compresslevel=1) as packing:
            shutil.copyfileobj(plain, packing)
        return small.replace(directory / small.name)


def build_command(cluster: Cluster, made_of: str, directory: str) -> str:
    """The shell line that builds our image on a server; its engine pulls the base."""
    given = {"BASE": base(cluster), "RELEASE": cluster.release, "INPUTS": made_of}
    options = [f"--build-arg={key}={value}" for key, value in given.items()]
    return docker_engine.shell(["docker", "build", f"--tag={name(cluster)}", *options, directory])
