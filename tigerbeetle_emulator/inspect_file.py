"""What `inspect superblock` prints about a data file, in the genuine server's words."""

from __future__ import annotations

from pathlib import Path

from .protocol.aegis import checksum
from .server.journal import read_identity

_MEMBERS_MAX = 12  # as in the genuine superblock: six replicas and six standbys


def members(cluster: int) -> list[int]:
    """The ids of a cluster's possible members: a function of its id, as all replicas agree."""
    name = cluster.to_bytes(16, "little")
    return [
        int.from_bytes(checksum(name + bytes([index])), "little") for index in range(_MEMBERS_MAX)
    ]


def superblock_lines(path: Path) -> list[str]:
    """One `|||| key=value` line a fact. Raises DataFileError."""
    identity = read_identity(path)
    ids = members(identity.cluster)
    release = identity.release
    triple = f"{release >> 16}.{release >> 8 & 0xFF}.{release & 0xFF}"
    return [
        f"|||| cluster=0x{identity.cluster:032x}",
        f"|||| vsr_state.checkpoint.release={triple}",
        f"|||| vsr_state.replica_id=0x{ids[identity.replica]:032x}",
        *(f"|||| vsr_state.members[{index}]=0x{each:032x}" for index, each in enumerate(ids)),
        f"|||| vsr_state.replica_count={identity.replica_count}",
    ]
