"""Data files in Docker volumes: whose they are, and how a new cluster's are formatted.

Formatting a cluster has two phases, so that an interruption can always be told from a loss: first
every replica's file is formatted as ``.partial``, then all are renamed. A file that is missing
while its ``.partial`` is there was never started: it may be finished. One that is missing without a
``.partial`` is lost, and is never formatted.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.config import Cluster
from cluster.refusal import Refusal
from cluster.runtimes import container, docker_engine, image
from cluster.runtimes.base import format_arguments
from cluster.tigerbeetle import data_file
from cluster.tigerbeetle.data_file import Identity, Past, Plan

UID = 10001
#: `inspect` reads 96 KiB, and may hang on a damaged file.
_INSPECT_TIMEOUT_S = 30
_SECTION = re.compile(r"^== (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Volume:
    """What one replica's volume holds."""

    owner: int
    files: tuple[str, ...] = ()
    superblock: str = ""
    is_in_use: bool = False  # a running replica writes to it: what is read meanwhile may be torn


def name(index: int) -> str:
    """Replica ``index``'s volume, as Compose calls it."""
    return f"{docker_engine.project()}_tigerbeetle-data-{index}"


def existing(cluster: Cluster) -> list[int]:
    """Indexes of the replicas that have a volume. Raises Refusal."""
    names = set(docker_engine.stdout(["docker", "volume", "ls", "--format", "{{.Name}}"]).split())
    return [r.index for r in cluster.replicas if name(r.index) in names]


def read(cluster: Cluster) -> dict[int, Volume | None]:
    """Replica index → what its volume holds, None where there is no volume.

    Needs our image for volumes to look into. Raises Refusal.
    """
    indexes = existing(cluster)
    in_use = {i for i, c in container.of_replicas(cluster).items() if c.pid}
    found: dict[int, Volume | None] = {r.index: None for r in cluster.replicas}
    if indexes:
        done = docker_engine.run(
            _look_command(cluster, indexes), _INSPECT_TIMEOUT_S * len(indexes) + 30
        )
        if done.returncode != 0:
            raise Refusal(docker_engine.refusal(["docker", "run"], done.stderr))
        looked = parse(done.stdout).items()
        found |= {i: replace(volume, is_in_use=i in in_use) for i, volume in looked}
    return found


def parse(output: str) -> dict[int, Volume]:
    """Read the answer of the container that looks into the volumes."""
    parts, found = _SECTION.split(output), {}
    for index, owner, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        listing, _, superblock = body.lstrip("\n").partition("--\n")
        found[int(index)] = Volume(int(owner), tuple(listing.split()), superblock)
    return found


def decide(
    volumes: Mapping[int, Volume | None],
    cluster: Cluster,
    past: Past = Past(),  # noqa: B008 - frozen
    *,
    is_asked_for: bool = True,
) -> Plan:
    """``format`` or ``keep``, from what the volumes hold. Raises Refusal. Pure."""
    files = {i: v.files if v else () for i, v in volumes.items()}
    data_file.refuse_half_restored(files, past.restore)
    identities = {
        i: _identity(volume, i, cluster) if volume else None for i, volume in volumes.items()
    }
    missing = [index for index, identity in identities.items() if identity is None]
    partials = {i: f"{data_file.file_name(cluster.id, i)}.partial" for i in missing}
    unfinished = [i for i in missing if (volume := volumes[i]) and partials[i] in volume.files]
    return data_file.decide(
        identities,
        cluster,
        is_bootstrapping=unfinished == missing,
        is_asked_for=is_asked_for,
        past=past,
    )


def holds_data(volumes: Mapping[int, Volume | None]) -> bool:
    """True when any volume holds a finished data file, of whichever cluster."""
    return any(f.endswith(".tigerbeetle") for v in volumes.values() if v for f in v.files)


def format_commands(cluster: Cluster, volumes: Mapping[int, Volume | None]) -> list[list[str]]:
    """The Compose commands that finish what ``plan`` called ``format``, in their order."""
    names = {i: data_file.file_name(cluster.id, i) for i in volumes}
    done = [i for i, v in volumes.items() if v and names[i] in v.files]
    todo = [i for i in volumes if i not in done]
    # With one file renamed, every .partial is complete: only the renaming was interrupted.
    formats = [] if done else [_format(cluster, i, f"/data/{names[i]}.partial") for i in todo]
    rename = "test ! -e {0} && mv {0}.partial {0}"
    renames = [docker_engine.in_service(i, rename.format(f"/data/{names[i]}")) for i in todo]
    return formats + renames


def _identity(volume: Volume, index: int, cluster: Cluster) -> Identity | None:
    if volume.owner != UID and volume.files:  # an empty one takes over the image's owner
        raise Refusal(
            f"volume {name(index)}: expected it to be owned by uid {UID}, found {volume.owner}. "
            f"Fix: docker run --rm --user 0 --entrypoint chown --volume {name(index)}:/data "
            f"{image.name(cluster)} -R {UID}:{UID} /data"
        )
    expected = data_file.file_name(cluster.id, index)
    data_files = [f for f in volume.files if f.endswith(".tigerbeetle")]
    data_file.refuse_others(index, expected, data_files)
    if not data_files:
        return None
    if volume.is_in_use:  # its server has read and checked it
        return Identity(cluster.id, index, len(cluster.replicas), cluster.release)
    return data_file.parse_superblock(volume.superblock).identity


def _look_command(cluster: Cluster, indexes: list[int]) -> list[str]:
    """A container without network that lists each volume and reads its file's superblock."""
    mounts = [f"--volume={name(i)}:/data/{i}" for i in indexes]
    script = "\n".join(
        f"echo '== {i}' $(stat -c %u /data/{i}); ls /data/{i} || echo unreadable; echo --; "
        f"test ! -e {_path(cluster, i)} || "
        f"timeout {_INSPECT_TIMEOUT_S} /tigerbeetle inspect superblock {_path(cluster, i)} 2>&1"
        for i in indexes
    )
    confinement = ["--network=none", "--read-only", "--cap-drop=ALL", "--cap-add=IPC_LOCK"]
    confinement.append(f"--security-opt=seccomp={cluster.seccomp}")
    run = [*confinement, *mounts, "--entrypoint=sh", image.name(cluster)]
    return ["docker", "run", "--rm", *run, "-c", f"{script}\ntrue"]


def _path(cluster: Cluster, index: int) -> str:
    return f"/data/{index}/{data_file.file_name(cluster.id, index)}"


def _format(cluster: Cluster, index: int, partial: str) -> list[str]:
    formatting = shlex.join(["/tigerbeetle", *format_arguments(cluster, index, partial)])
    return docker_engine.in_service(index, f"rm -f {partial} && {formatting}")
