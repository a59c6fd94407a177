"""Data files: which replica they belong to, and whether formatting is safe. Pure.

A data file holds money. ``format`` is right only for a cluster that has never existed: no replica
has a file. If one file is missing among others, a replica is lost. Formatting it anew would make it
forget what it acknowledged; ``tigerbeetle recover`` makes it again from the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from cluster.config import Cluster
from cluster.refusal import Refusal

#: A line of `inspect superblock`: a mark for each copy that has this value.
_FIELD = re.compile(r"^([|_]{4}) ([^=\s]+)=(.*)$", re.MULTILINE)
_OP = re.compile(r" \.op=(\d+)")
COPIES = 4
#: Two agreeing copies are enough for the server: it may be killed while it writes them in turn.
_QUORUM = 2
_MEMBER = "vsr_state.members[{}]"

Plan = Literal["format", "keep"]

#: Behind a data file's name: unpacked by a restore; replaced by it; and no longer needed.
RESTORING, REPLACED, ACCEPTED = ".restoring", ".replaced", ".accepted"
#: The same, before the name of the backup that it is made for: a clone.
CLONE = ".clone-"


def spared(count: int) -> int:
    """How many of ``count`` replicas may be away: the others are a majority."""
    return (count - 1) // 2


@dataclass(frozen=True)
class Past:
    """What is known of a cluster apart from its data files, and what a person types without them.

    ``recover`` is empty where replicas cannot recover from one another.
    """

    place: str = "on any server"  # where its data files belong
    traces: tuple[str, ...] = ()  # what says that it has existed
    restore: str = "make restore INVENTORY=… FROM="
    recover: str = "make recover INVENTORY=…"
    new: str = "make up INVENTORY=… BOOTSTRAP=yes"
    anew: str = "make up INVENTORY=… BOOTSTRAP=yes"  # though it has existed

    def fix(self, missing: Sequence[int], count: int) -> str:
        """What to do about the files of these replicas of ``count``."""
        if len(missing) == count and not self.traces:
            return (
                f"mount their disks if there were some, or go back to a backup: `{self.restore}`; "
                f"for a cluster that has never existed: {self.new}"
            )
        if len(missing) <= spared(count) and self.recover:
            recover = f"`{self.recover} REPLICA={missing[0]}` in the living cluster"
            return f"bring the file back, or {recover}"
        restore = f"mount the disk that they are on, or go back to a backup: `{self.restore}`"
        if len(missing) == count:
            return f"{restore}; to begin anew, without all that it held: `{self.anew}`"
        return f"{restore}, since nothing can recover them from so few"


@dataclass(frozen=True)
class Identity:
    """Which cluster and replica a data file belongs to. Fixed when it was formatted."""

    cluster_id: int
    replica: int
    replica_count: int
    release: str

    def __str__(self) -> str:
        return f"cluster {self.cluster_id}, replica {self.replica} of {self.replica_count}"


@dataclass(frozen=True)
class Superblock:
    """A data file's identity and its newest operation, as its superblock has them."""

    identity: Identity
    op_checkpoint: int
    commit_max: int
    agreed: int = COPIES  # how many of the copies say so

    @property
    def is_torn(self) -> bool:
        """True if the copies differ: the replica was killed while it wrote them. Harmless."""
        return self.agreed < COPIES


def file_name(cluster_id: int, replica: int) -> str:
    """TigerBeetle's own convention, as its documentation and the Compose file use it."""
    return f"{cluster_id}_{replica}.tigerbeetle"


def parse_superblock(output: str) -> Superblock:
    """Identity and progress in what ``tigerbeetle inspect superblock`` prints.

    The emulator's has no progress: its numbers are 0. Raises Refusal for a file that is not a
    formatted data file, or is damaged.
    """
    fields, agreed = _working(output)
    try:
        members = [fields[_MEMBER.format(i)] for i in range(6) if _MEMBER.format(i) in fields]
        identity = Identity(
            cluster_id=int(fields["cluster"], 16),
            replica=members.index(fields["vsr_state.replica_id"]),
            replica_count=int(fields["vsr_state.replica_count"]),
            release=fields["vsr_state.checkpoint.release"],
        )
    except (KeyError, ValueError):
        last = output.strip().splitlines()[-1:] or ["nothing"]
        raise Refusal(
            f"expected a formatted data file, found one whose superblock reads: {last[0]}. "
            "Fix: restore this file's replica from its peers (docs: a damaged data file); "
            "do not format over it"
        ) from None
    checkpoint = _OP.search(fields.get("vsr_state.checkpoint.header", ""))
    return Superblock(
        identity=identity,
        op_checkpoint=int(checkpoint[1]) if checkpoint else 0,
        commit_max=int(fields.get("vsr_state.commit_max", 0)),
        agreed=agreed,
    )


def _working(output: str) -> tuple[dict[str, str], int]:
    """The fields of the copies that the server would open, and how many copies have them.

    They are chosen as in superblock_quorums.zig: the newest on which at least two copies agree.
    Nothing if no two agree, or if it cannot be told which is newer.
    """
    found = _FIELD.findall(output)
    copies = [
        frozenset((key, value) for marks, key, value in found if marks[i] == "|" and key != "copy")
        for i in range(COPIES)
    ]
    quorums = [(dict(copy), count) for copy, count in Counter(copies).items() if count >= _QUORUM]
    sequences = [int(fields.get("sequence", 0)) for fields, _ in quorums]
    newest = max(sequences, default=0)
    return quorums[sequences.index(newest)] if sequences.count(newest) == 1 else ({}, 0)


def decide(
    identities: Mapping[int, Identity | None],
    cluster: Cluster,
    *,
    is_bootstrapping: bool,
    is_asked_for: bool = True,
    answering: Collection[int] = (),
    past: Past = Past(),
) -> Plan:
    """``format`` for a cluster that never existed, ``keep`` for one that is whole.

    ``identities`` has one entry per replica index, None where there is no file.
    ``is_bootstrapping`` says that an earlier format was interrupted: no replica has ever been
    started, so what is missing may still be formatted. ``is_asked_for`` says that a new cluster
    is meant, ``answering`` which replicas' ports are open, ``past`` whether it has existed. Raises
    Refusal for a foreign file, for a file lost among others, and for a format that was not asked
    for or while one answers.
    """
    for index, found in identities.items():
        own = Identity(cluster.id, index, len(cluster.replicas), found.release if found else "")
        if found not in (None, own):
            raise Refusal(
                f"replica {index}: expected the data file of {own}, found that of {found}. "
                "Fix: put the right file in its place, or set LU_CFG_TIGERBEETLE_DATA_DIR to "
                "another directory; nothing was changed"
            )
    missing = [index for index, found in identities.items() if found is None]
    if not missing:
        return "keep"
    if is_bootstrapping or len(missing) == len(identities):
        _refuse_answering(answering)
        if not (is_asked_for or is_bootstrapping):
            refuse_new(cluster, past)
        return "format"
    lost = ", ".join(map(str, missing))
    raise Refusal(
        f"replica {lost}: expected a data file, since the other replicas have theirs, found none. "
        f"Fix: {past.fix(missing, len(identities))}; "
        "formatting it would make it forget transfers it has acknowledged"
    )


def refuse_new(cluster: Cluster, past: Past) -> NoReturn:
    """Raises Refusal for a format that nobody has asked for."""
    known = f", though it has existed: {'; '.join(past.traces)}" if past.traces else ""
    everyone = [replica.index for replica in cluster.replicas]
    raise Refusal(
        f"cluster {cluster.id}: expected its data files, found none {past.place}{known}. "
        f"Fix: {past.fix(everyone, len(everyone))}"
    )


def _refuse_answering(answering: Collection[int]) -> None:
    if answering:
        which = ", ".join(map(str, sorted(answering)))
        raise Refusal(
            f"replica {which}: expected no replica to answer while data files are missing, found "
            "its port open: a cluster lives there, or another program listens. Fix: bring the "
            "cluster's data files or mounts back, or choose other addresses for a new one"
        )


def is_half_restored(files: Mapping[int, Iterable[str]]) -> bool:
    """A restore was cut off between its renames: the replicas' files are of two moments.

    ``files`` are the names in each replica's place. What a restore has replaced is kept on all of
    them until the cluster commits, and then renamed on all before any is removed.
    """
    suffixes = {i: {n.rpartition(".tigerbeetle")[2] for n in names} for i, names in files.items()}
    replaced = [index for index, found in suffixes.items() if REPLACED in found]
    is_accepted = any(ACCEPTED in found for found in suffixes.values())
    return 0 < len(replaced) < len(files) and not is_accepted


def refuse_half_restored(files: Mapping[int, Iterable[str]], restore: str) -> None:
    """Raises Refusal: a replica with an older file has forgotten what it has acknowledged.

    ``restore`` is the command that restores the newest backup.
    """
    if is_half_restored(files):
        raise Refusal(
            "data files",
            expected="all of one moment",
            found="a restore that was cut off when some were replaced, and others not yet",
            fix=f"{restore}, or the backup that it was: the old ones are put back first",
        )


def refuse_others(replica: int, expected: str, found: Iterable[str]) -> None:
    """Refuse a directory that has another data file: most likely somebody changed the cluster id.

    A new cluster is never made beside an existing one. Raises Refusal.
    """
    for name in found:
        if name != expected:
            raise Refusal(
                f"replica {replica}: expected no data file but {expected}, found {name}. "
                "Fix: set LU_CFG_TIGERBEETLE_CLUSTER_ID back to the cluster that is here, or "
                "LU_CFG_TIGERBEETLE_DATA_DIR to another directory for a new one"
            )
