"""The image: built when an input changed, by digest once one is recorded, and without a network."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import REPOSITORY, config
from cluster.config import PREFIX, Cluster
from cluster.refusal import Refusal
from cluster.runtimes import image
from cluster.tigerbeetle import binary
from tests.docker.registry import Registry, digest_of, registry
from tests.docker.sandbox import DockerSandbox, docker, docker_sandbox, needs_emulator

pytestmark = [pytest.mark.docker]

FILES = REPOSITORY / "files" / "tigerbeetle"
RELEASE = config.load(environ={}).release


@pytest.fixture(scope="module")
def emulator() -> Iterator[DockerSandbox]:
    """The emulator's sandbox, with a custom image of its own, built."""
    needs_emulator()
    with docker_sandbox() as made:
        made.overrides[f"{PREFIX}CUSTOM_IMAGE"] = f"{made.project}-emulator"
        first = made.make("compose-tb-build")
        assert "built successfully" in first.stdout, first.stderr
        yield made
        docker("rmi", "--force", f"{made.project}-emulator:{RELEASE}", f"{made.project}-emulator")


def id_of(reference: str) -> str:
    return docker("image", "inspect", "--format={{.Id}}", reference).stdout.strip()


def test_an_image_is_built_once_and_again_when_an_input_changes(emulator: DockerSandbox) -> None:
    name = f"{emulator.project}-emulator:{RELEASE}"
    built = id_of(name)
    assert "is up to date" in emulator.call("compose-tb", "build").stdout
    assert id_of(name) == built
    docker("tag", f"tigerbeetle-emulator:{RELEASE}", name)  # not what was built
    assert "built successfully" in emulator.call("compose-tb", "build").stdout


@pytest.mark.parametrize("part", ["dockerfile", "base id", "release", "digest"])
def test_every_input_is_in_the_fingerprint(part: str, tmp_path: Path) -> None:
    cluster = config.load(environ={})
    other, base_id, dockerfile = cluster, "sha256:1", tmp_path / "Dockerfile"
    dockerfile.write_text("FROM a")
    before = image.inputs(cluster, base_id, dockerfile)
    assert image.inputs(cluster, base_id, dockerfile) == before
    if part == "dockerfile":
        dockerfile.write_text("FROM b")
    if part == "base id":
        base_id = "sha256:2"
    if part == "release":
        other = cluster.model_copy(update={"release": "0.17.10"})
    if part == "digest":
        other = cluster.model_copy(update={"image_digest": "sha256:" + "1" * 64})
    assert image.inputs(other, base_id, dockerfile) != before


# --- Without a network --------------------------------------------------------------------------


def test_a_base_with_the_tools_needs_no_network(emulator: DockerSandbox) -> None:
    tooled = f"{emulator.project}-emulator:{RELEASE}"
    again = f"{emulator.project}-emulator:again"
    done = docker(
        "build",
        "--network=none",
        "--no-cache",
        f"--build-arg=BASE={tooled}",
        f"--build-arg=RELEASE={RELEASE}",
        f"--tag={again}",
        str(FILES),
    )
    assert done.returncode == 0, done.stderr
    assert docker("rmi", again).returncode == 0


def test_an_image_from_elsewhere_is_taken_as_it_is_and_keeps_its_capability(
    emulator: DockerSandbox,
) -> None:
    name, archive = f"{emulator.project}-emulator:{RELEASE}", str(emulator.directory / "image.tar")
    built = id_of(name)
    assert docker("save", f"--output={archive}", name).returncode == 0
    docker("rmi", "--force", name, f"{emulator.project}-emulator:latest")
    assert docker("load", f"--input={archive}").returncode == 0
    assert id_of(name) == built
    assert "is up to date" in emulator.call("compose-tb", "build").stdout
    capability = docker("run", "--rm", "--entrypoint=getcap", name, "/tigerbeetle")
    assert "cap_ipc_lock=ep" in capability.stdout


@pytest.mark.genuine
def test_a_binary_alone_becomes_a_base(tmp_path: Path) -> None:
    server = binary.find_tigerbeetle(config.load())
    assert server is not None
    shutil.copy(server, tmp_path / "tigerbeetle")
    tag = f"ws-test-{os.getpid()}-base-from-binary:1"
    done = docker(
        "build",
        "--network=none",
        "--file",
        str(FILES / "base.Dockerfile"),
        f"--build-arg=ROOT=tigerbeetle-emulator:{RELEASE}",
        f"--tag={tag}",
        str(tmp_path),
    )
    try:
        assert done.returncode == 0, done.stderr
        shown = docker("run", "--rm", "--network=none", tag, "version")
        assert f"TigerBeetle version {RELEASE}" in shown.stdout + shown.stderr
    finally:
        docker("rmi", tag)


# --- The digest ---------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[Registry]:
    """A registry with one small image under the configured name."""
    with registry() as made:
        push(made, b"first")
        yield made
        left = docker("images", "--quiet", f"{made.name}/*").stdout.split()
        if left:
            docker("rmi", "--force", *left)


def push(store: Registry, content: bytes) -> None:
    """Push an image with one file, and forget it here."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    name = base_of(store)
    subprocess.run(
        ["docker", "import", "-", name], input=archive.getvalue(), check=True, capture_output=True
    )
    pushed = docker("push", name)
    assert pushed.returncode == 0, pushed.stderr
    docker("rmi", name)


def base_of(store: Registry) -> str:
    return f"{store.name}/tigerbeetle-emulator:{RELEASE}"


def cluster_of(store: Registry, digest: str = "") -> Cluster:
    return config.load(
        environ={
            f"{PREFIX}IMAGE": f"{store.name}/tigerbeetle-emulator",
            f"{PREFIX}CUSTOM_IMAGE": f"ws-test-{os.getpid()}-pin-emulator",
            f"{PREFIX}IMAGE_DIGEST": digest,
        }
    )


def test_pin_records_the_digest_of_what_was_pulled(store: Registry, tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    shutil.copy(config.ENV_FILE, env_file)
    digest = image.pin(cluster_of(store), env_file)
    assert digest in store.manifests
    changed = set(env_file.read_text().splitlines()) - set(config.ENV_FILE.read_text().splitlines())
    assert changed == {f"{PREFIX}IMAGE_DIGEST={digest}"}


def test_a_recorded_digest_is_what_is_pulled_though_the_tag_has_moved(store: Registry) -> None:
    (recorded,) = store.manifests
    push(store, b"second")
    cluster = cluster_of(store, recorded)
    assert store.tags[f"tigerbeetle-emulator:{RELEASE}"] != recorded
    image.pull_base(cluster)
    digests = docker("image", "inspect", "--format={{.RepoDigests}}", image.base(cluster)).stdout
    assert recorded in digests


def test_a_registry_that_lost_the_recorded_image_is_refused(store: Registry) -> None:
    (recorded,) = store.manifests
    push(store, b"second")
    del store.manifests[recorded]
    with pytest.raises(Refusal, match=r"IMAGE: expected .*@sha256:.* in its registry, found"):
        image.pull_base(cluster_of(store, recorded))


def test_a_registry_that_gives_other_content_for_the_digest_is_refused(store: Registry) -> None:
    (recorded,) = store.manifests
    forged = store.manifests[recorded].replace(b"mediaType", b"mediatype", 1)
    assert digest_of(forged) != recorded
    store.manifests[recorded] = forged
    with pytest.raises(Refusal, match=r"expected .* in its registry, found"):
        image.pull_base(cluster_of(store, recorded))


def test_a_base_that_was_built_here_has_no_digest_to_record(tmp_path: Path) -> None:
    needs_emulator()
    cluster = config.load(
        environ={
            f"{PREFIX}IMAGE": "tigerbeetle-emulator",
            f"{PREFIX}CUSTOM_IMAGE": "tigerbeetle-emulator-custom",
        }
    )
    with pytest.raises(Refusal, match="expected a base that a registry gave"):
        image.pin(cluster, tmp_path / "env")
    assert list(tmp_path.iterdir()) == []
