"""A backup: one directory with every replica's data file, packed, and the manifest that binds them.

    backups/DEPLOYMENT/20261124T064500Z/   manifest.json   replica-0.zst   replica-1.zst   ...

Of one whose files are in a repository, the directory has the manifest alone.

The files of one set are of one moment: all replicas were stopped while they were copied, or frozen
while they were cloned, since a copy of a running one is inconsistent. With files of different
moments a replica would forget what it has acknowledged, and transfers would be lost.
The manifest's checksums make sure that no file of another set is taken for one of this set.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from cluster.config import kept
from cluster.config.deployment import Deployment, Engine
from cluster.operate.backup import retention
from cluster.operate.backup.retention import Policy
from cluster.refusal import Refusal
from cluster.tigerbeetle.data_file import Identity, Superblock
from cluster.tigerbeetle.totals import Totals
from cluster.tigerbeetle.upgrade_path import triple

MANIFEST = "manifest.json"
#: While a backup is taken: when the replicas were stopped, and when the cluster committed again;
#: seconds since 1970.
STOPPED, COMMITTED = "stopped-at", "committed-at"
#: Suffix → how to unpack it. Packed with zstd where the host has it (ten times as fast), else gzip.
UNPACK = {"zst": "zstd -q -d -c", "gz": "gzip -d -c"}
#: When it was taken, in UTC.
NAME = re.compile(r"\d{8}T\d{6}Z")


class Damaged(Refusal):
    """A backup whose files are not those that were written."""


class KeptFile(BaseModel, frozen=True, extra="forbid"):
    """One replica's data file, and what its superblock says."""

    replica: int
    size: int = Field(description="bytes that it takes packed, or that its repository had to pack")
    data_size: int = Field(description="bytes of the data file")
    release: str
    op_checkpoint: int = Field(description="the operation up to which its checkpoint reaches")
    commit_max: int = Field(description="committed at the last write of its superblock, or later")


class PackedFile(KeptFile, frozen=True):
    """One that is kept beside the manifest."""

    name: str = Field(pattern=r"^replica-\d\.(zst|gz)$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the packed file")


class StoredFile(KeptFile, frozen=True):
    """One in a repository, which checks by itself that each byte is what was stored."""

    snapshot: str = Field(pattern=r"^[0-9a-f]{64}$", description="restic's id of it")

    @property
    def name(self) -> str:
        """As a person knows it."""
        return f"replica {self.replica}'s file in snapshot {self.snapshot[:8]}"


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What is known about a set. Times are UTC."""

    format: Literal[1] = 1
    name: str
    deployment: str
    engine: Engine
    cluster_id: str = Field(description="decimal")
    replica_count: int
    release: str = Field(description="the newest of its files' releases")
    taken_at: datetime = Field(description="when the replicas stood still")
    way: Literal["freeze", "stop"] | None = Field(
        default=None, description="null: was down, or is older"
    )
    frozen_s: float | None = Field(
        default=None, description="from the first freeze to the last thaw"
    )
    stopped_s: float | None = Field(description="from the stop to the next commit; null: was down")
    before: Totals | None = Field(description="read before the stop; null: could not be read")
    after: Totals | None = Field(description="read after the start; null: could not be read")
    files: list[PackedFile] | list[StoredFile]

    @property
    def whose(self) -> str:
        """The cluster, as ``Deployment.whose`` calls it."""
        return f"cluster {self.cluster_id} ({self.deployment}, {self.engine})"

    @property
    def is_stored(self) -> bool:
        """Its files are in a repository."""
        return any(isinstance(file, StoredFile) for file in self.files)

    @property
    def size(self) -> int:
        """Bytes that its files take packed, or that their repository had to pack."""
        return sum(file.size for file in self.files)

    @property
    def data_size(self) -> int:
        """Bytes of all data files."""
        return sum(file.data_size for file in self.files)


def directory(deployment: str) -> Path:
    """Where a deployment's backups are."""
    return kept.backups() / deployment


def packed_file(path: Path, superblock: Superblock, data_size: int) -> PackedFile:
    """Describe a packed file that has just been written."""
    size, known = path.stat().st_size, _known(superblock)
    return PackedFile(name=path.name, size=size, sha256=sha256(path), data_size=data_size, **known)


def stored_file(snapshot: str, added: int, superblock: Superblock, data_size: int) -> StoredFile:
    """Describe a file that has just been stored, so many bytes of which were new."""
    known = _known(superblock)
    return StoredFile(snapshot=snapshot, size=added, data_size=data_size, **known)


def _known(superblock: Superblock) -> dict[str, Any]:
    return {
        "replica": superblock.identity.replica,
        "release": superblock.identity.release,
        "op_checkpoint": superblock.op_checkpoint,
        "commit_max": superblock.commit_max,
    }


def read(set_directory: Path) -> Manifest:
    """The manifest of a set. Raises Refusal for a directory that is not a whole backup."""
    path = set_directory / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(
            f"FROM: expected a backup, a directory with {MANIFEST}, found {set_directory} "
            f"({error.strerror}). Fix: name one of `ls {shlex.quote(str(set_directory.parent))}`"
        ) from None
    except (ValidationError, ValueError) as error:
        why = str(error).splitlines()
        raise Refusal(
            f"{path}: expected the manifest of a backup, found {' '.join(why[1:3]) or why[0]}. "
            "Fix: take another backup"
        ) from None
    if [file.replica for file in manifest.files] != list(range(manifest.replica_count)):
        raise Refusal(
            f"{path}: expected the files of replicas 0 to {manifest.replica_count - 1}, found "
            f"{', '.join(str(f.replica) for f in manifest.files) or 'none'}. "
            "Fix: take another backup; a part of one restores nothing"
        )
    return manifest


def refuse_foreign(manifest: Manifest, deployment: Deployment) -> None:
    """Refuse a set of another cluster, or of a release newer than the server's. Pure."""
    cluster, count = deployment.cluster, len(deployment.cluster.replicas)
    if (manifest.whose, manifest.replica_count) != (deployment.whose, count):
        fix = "name a backup of this cluster, or the INVENTORY of that one"
        if (manifest.cluster_id, manifest.engine) == (str(cluster.id), deployment.engine):
            fix += f"; if it is this one under an earlier name, give it back: {manifest.deployment}"
        raise Refusal(
            "FROM",
            expected=f"a backup of {deployment.whose} with {count} replicas",
            found=f"one of {manifest.whose} with {manifest.replica_count}",
            fix=fix,
        )
    if triple(manifest.release) > triple(cluster.release):
        raise Refusal(
            f"FROM: expected a backup of release {cluster.release} or older, found one of "
            f"{manifest.release}. Fix: set LU_CFG_TIGERBEETLE_RELEASE to {manifest.release} and "
            "bring that server; no release reads a newer one's files"
        )


def check_files(
    set_directory: Path, manifest: Manifest, on_progress: Callable[[str], None] = lambda _: None
) -> None:
    """Check that every file is there and is byte for byte what was written.

    Raises Damaged for the whole set if one file is missing, damaged, or of another set.
    """
    for file in manifest.files:
        if isinstance(file, StoredFile):  # its repository checks each byte that it gives
            continue
        path = set_directory / file.name
        if not path.is_file():
            raise Damaged(
                f"{path}: expected replica {file.replica}'s file, found none. "
                "Fix: bring it back, or take another backup; a part of one restores nothing"
            )
        on_progress(f"checking {file.name} ({file.size / 1024**2:,.1f} MiB)")
        found = sha256(path)
        if found != file.sha256:
            raise Damaged(
                f"{path}: expected sha256 {file.sha256[:16]}…, found {found[:16]}…: damaged, or of "
                "another backup. Fix: take another one; files of different moments lose transfers"
            )


def identify(manifest: Manifest, file: PackedFile | StoredFile, found: Superblock) -> None:
    """Check that an unpacked data file is the one in the manifest. Pure. Raises Damaged."""
    count, release = manifest.replica_count, found.identity.release
    expected = Identity(int(manifest.cluster_id), file.replica, count, release)
    is_it = found.identity == expected and found.commit_max == file.commit_max
    if not is_it or found.op_checkpoint != file.op_checkpoint:
        raise Damaged(
            f"{file.name}: expected {expected} at checkpoint {file.op_checkpoint}, found "
            f"{found.identity} at {found.op_checkpoint}. Fix: take another backup; nothing was "
            "changed"
        )


def complete(root: Path) -> list[Path]:
    """The complete sets under a deployment's directory, oldest first."""
    found = (path for path in root.glob("*") if NAME.fullmatch(path.name))
    return sorted(path for path in found if (path / MANIFEST).is_file())


def chosen(source: str | None, deployment: Deployment) -> Path:
    """The set that is named, by path or by its name; else this cluster's newest.

    Raises Refusal where there is none, and for a newer one that does not say whose it is.
    """
    root = directory(deployment.name)
    if source:
        return root / source if NAME.fullmatch(source) else kept.expanded(source).absolute()
    for found in reversed(complete(root)):
        if read(found).whose == deployment.whose:
            return found
    raise Refusal(
        "FROM",
        expected=f"a backup of {deployment.whose} under {root}",
        found="none",
        fix=f"make backup {deployment.named}, or name one",
    )


def of_cluster(paths: Iterable[Path], deployment: Deployment) -> dict[Path, Manifest]:
    """The whole ones of these sets that are this cluster's, in their order, and their manifests."""
    found = {}
    for path in paths:
        with contextlib.suppress(Refusal):  # not whole: a person decides
            found[path] = read(path)
    return {path: m for path, m in found.items() if m.whose == deployment.whose}


def expired(root: Path, deployment: Deployment, keep: Policy) -> list[Path]:
    """This cluster's packed sets that ``keep`` lets go, oldest first; never another cluster's."""
    found = of_cluster(complete(root), deployment).items()
    packed = {path.name: path for path, manifest in found if not manifest.is_stored}
    return [packed[name] for name in retention.expired(keep, packed)]


def remove(set_directory: Path) -> None:
    """Remove a set, its manifest first: if this is interrupted, the rest counts as no backup."""
    (set_directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(set_directory)


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
