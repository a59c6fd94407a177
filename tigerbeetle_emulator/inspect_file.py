"""What `inspect superblock` prints about a data file, in the genuine server's words."""

from __future__ import annotations

from pathlib import Path

from .protocol.aegis import checksum
from .protocol.wire import release_text
from .server.journal import read_identity

_MEMBERS_MAX = 12  # as in the genuine superblock: six replicas and six standbys


def superblock_lines(path: Path) -> list[str]:
    """One `|||| key=value` line a fact. Raises DataFileError."""
    identity = read_identity(path)
    cluster = identity.cluster.to_bytes(16, "little")
    # A function of the cluster's id alone, so that all replicas agree.
    names = [checksum(cluster + bytes([index])) for index in range(_MEMBERS_MAX)]
    ids = [f"0x{int.from_bytes(name, 'little'):032x}" for name in names]
    return [
        f"|||| cluster=0x{identity.cluster:032x}",
        f"|||| vsr_state.checkpoint.release={release_text(identity.release)}",
        f"|||| vsr_state.replica_id={ids[identity.replica]}",
        *(f"|||| vsr_state.members[{index}]={each}" for index, each in enumerate(ids)),
        f"|||| vsr_state.replica_count={identity.replica_count}",
    ]
