"""A scratch cluster from a backup: unpacked into a directory of its own, on free loopback ports.

It has the original's cluster id, so no client of the original may ever reach it. It listens only on
127.0.0.1, on ports that no client knows, and is stopped and removed at the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import config
from cluster.config import PREFIX, Cluster
from cluster.config.deployment import Deployment, Engine
from cluster.interruption import whole
from cluster.operate import phase
from cluster.operate.backup import packing, repository
from cluster.operate.backup.sets import Damaged, Manifest
from cluster.refusal import Refusal
from cluster.runtimes import image, of, tunnel
from cluster.tigerbeetle import binary
from cluster.tigerbeetle.data_file import RESTORING

#: The smallest that is useful: the original's replicas need their memory, too.
_CACHE_GRID = "64MiB"
_UNPACK_TIMEOUT_S = 6 * 3600.0
_EXTRACT_TIMEOUT_S = 60
INVENTORIES: dict[Engine, str] = {
    "emulator": "inventories/emulator.py",
    "tigerbeetle": "inventories/process.py",
}


@dataclass(frozen=True)
class Scratch:
    """A scratch cluster: what its commands need to know, and what they then see."""

    engine: Engine
    environ: dict[str, str]
    deployment: Deployment

    def start(self) -> None:
        """Start it; returns when it commits. Raises Failed."""
        phase.run(INVENTORIES[self.engine], "deploy.py", environ=self.environ, quiet=True)

    def stop(self) -> None:
        """Stop it. Raises Failed."""
        phase.run(INVENTORIES[self.engine], "tasks.replica.stop", environ=self.environ, quiet=True)


@contextmanager
def unpacked(original: Deployment, set_directory: Path, manifest: Manifest) -> Iterator[Scratch]:
    """The backup's data files, unpacked; everything is gone at the end.

    Raises Refusal when there is no room or no server program; Damaged for what does not unpack.
    """
    # A short path: supervisor's socket must fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="scratch-") as directory:
        _require_room(Path(directory), manifest)
        scratch = _scratch(original, Path(directory), manifest)
        here = of(scratch.deployment)
        scripts = []
        for file in manifest.files:
            data = here.data_file(file.replica)
            Path(data).parent.mkdir(parents=True, mode=0o700)
            copy = packing.copy(set_directory, file)
            unpack = packing.unpack(here, file.replica, copy, file.data_size)
            restoring = shlex.quote(data + RESTORING)
            scripts.append(f"{unpack} && mv {restoring} {shlex.quote(data)}")
        script = ["sh", "-c", packing.together(scripts)]
        opened = repository.environ(original) if manifest.is_stored else dict(os.environ)
        done = subprocess.run(
            script, capture_output=True, text=True, env=opened, timeout=_UNPACK_TIMEOUT_S
        )
        if done.returncode != 0:
            if manifest.is_stored:
                raise Damaged(str(repository.refused(original, done.stderr)))
            raise Damaged(
                f"{set_directory}: expected files that unpack, found: {done.stderr.strip()}. "
                "Fix: take another backup"
            )
        try:
            yield scratch
        finally:
            with whole("stopping the scratch cluster"):
                if here.states() is not None:
                    scratch.stop()


def _scratch(original: Deployment, directory: Path, manifest: Manifest) -> Scratch:
    engine = manifest.engine
    environ = _environ(original.cluster, directory)
    if engine == "tigerbeetle":
        environ["TIGERBEETLE_BIN"] = str(_server(original, directory))
    name = Path(INVENTORIES[engine]).stem
    deployment = Deployment(
        name=name,
        engine=engine,
        runtime="process",
        state_dir=directory / name,
        cluster=config.load(environ=environ).on_loopback(),
    )
    deployment.state_dir.mkdir(mode=0o700)
    return Scratch(engine, environ, deployment)


def _environ(cluster: Cluster, directory: Path) -> dict[str, str]:
    """This process's environment, with ports, directory and memory of the scratch's own."""
    changed = {
        "SUBNET": "172.20.0.0/24",  # of containers: processes use loopback
        "CLUSTER_ID": str(cluster.id),
        "RELEASE": cluster.release,
        "DATA_DIR": str(directory),
        "CACHE_GRID": _CACHE_GRID,
        "STATSD": "",
    }
    addresses = []
    for i, port in enumerate(tunnel.free_ports(len(cluster.replicas))):
        ip = f"172.20.0.1{i}"
        changed |= {f"{i}_CONTAINER_NAME": f"scratch-{i}", f"{i}_IP": ip, f"{i}_PORT": str(port)}
        addresses.append(f"{ip}:{port}")
    changed["ADDRESSES"] = ",".join(addresses)
    own = {f"{PREFIX}{name}": value for name, value in changed.items()}
    return os.environ | own | {"RECORDS_DIR": str(directory)}


def _server(original: Deployment, directory: Path) -> Path:
    """The program on this machine, else the one in our image. Raises Refusal."""
    found = binary.find_tigerbeetle(original.cluster)
    if found is not None:
        return found
    taken = directory / "tigerbeetle"
    name = image.name(original.cluster)
    script = f"id=$(docker create {name}) && docker cp $id:/tigerbeetle {taken}; docker rm $id"
    try:
        subprocess.run(["sh", "-c", script], capture_output=True, timeout=_EXTRACT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        taken.unlink(missing_ok=True)
    if taken.is_file():
        return taken
    raise Refusal(
        "backup-verify: expected a tigerbeetle server to open the backup with, found none on PATH, "
        f"in TIGERBEETLE_BIN, or in an image {name}. Fix: make download"
    )


def _require_room(directory: Path, manifest: Manifest) -> None:
    free = shutil.disk_usage(directory).free
    if free < manifest.data_size:
        raise Refusal(
            f"{directory}: expected {manifest.data_size / 1024**3:.1f} GiB free to unpack the "
            f"backup, found {free / 1024**3:.1f} GiB. Fix: free some, or set TMPDIR to another disk"
        )
