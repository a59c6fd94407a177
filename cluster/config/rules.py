"""Which clusters are allowed: rules over a whole Cluster, each with its reason. Pure.

A field's own form is the model's business. Every rule raises Refusal with the fix.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from cluster import REPOSITORY
from cluster.config.model import PREFIX, Cluster, memory_bytes, size_bytes
from cluster.refusal import Refusal

#: The example token in env/tigerbittle.env: everybody knows it, so production refuses it.
DEFAULT_TOKEN = "CfDj7kdpld7BsUpXzQYiOfLdnateLkdBysPEWnvc"  # noqa: S105 - published, protects nothing

#: The server rounds the grid cache down to a multiple of the first, and counts blocks of 512 KiB
#: in 32 bits.
GRID_MIN_BYTES, GRID_MAX_BYTES = 32 * 1024**2, 2047 * 1024**4

#: Odd quorums tolerate a failure with the fewest replicas; TigerBeetle's replicas_max is 6.
REPLICA_COUNTS = (1, 3, 6)
REPLICA_COUNT_ADVICE = {
    2: "2 replicas stop when either fails: use 3",
    4: "4 replicas survive one failure, as 3 do, and commit slower: use 3 or 6",
    5: "5 replicas need the quorums of 6 without its durability: use 3 or 6",
}


def check(cluster: Cluster, addresses: str | None) -> None:
    """What holds wherever replicas run. Raises Refusal for the first rule that is broken."""
    _check_unique(cluster, "name", "CONTAINER_NAME")
    _check_unique(cluster, "ip", "IP")
    _check_addresses(cluster, addresses)
    _check_memory(cluster)
    _check_image(cluster)


def check_profile(cluster: Cluster) -> None:
    """The seccomp profile is there, and is one. Raises Refusal."""
    if cluster.seccomp == "unconfined":
        return
    path = REPOSITORY / cluster.seccomp
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
        found = "" if "defaultAction" in profile else "no JSON of that kind"
    except OSError:
        found = f"none at {path}"
    except ValueError:
        found = "no JSON"
    if found:
        raise Refusal(
            f"{PREFIX}SECCOMP",
            expected=f"the file of a seccomp profile, found from {REPOSITORY}, or unconfined",
            found=found,
            fix="set it to files/tigerbeetle/seccomp.json",
        )


def check_one_machine(cluster: Cluster) -> None:
    """On one machine each replica needs a port of its own. Raises Refusal."""
    _check_unique(cluster, "port", "PORT")


def check_servers(cluster: Cluster, *, is_development: bool) -> None:
    """What servers of their own need; production also refuses what everybody knows.

    Raises Refusal. On servers all replicas may share one port.
    """
    for replica in cluster.replicas:
        if replica.ip.is_loopback or replica.ip.is_unspecified:
            raise Refusal(
                f"{PREFIX}{replica.index}_IP",
                expected="the address of a server, which its peers reach",
                found=replica.ip,
                fix="set the server's own address",
            )
    if is_development:
        return
    fix = "write a new env file with `make init-env`"
    if cluster.id == 0:
        wanted = "a random number of this cluster's own, since 0 is for testing"
        raise Refusal(f"{PREFIX}CLUSTER_ID", expected=wanted, found=0, fix=fix)
    if cluster.token == DEFAULT_TOKEN:
        wanted, known = "a token of this installation's own", "the published example"
        raise Refusal(f"{PREFIX}AUTH_TOKEN", expected=wanted, found=known, fix=fix)


def check_replica_numbers(indexes: Sequence[int]) -> None:
    """Numbered from 0 without a gap, and 1, 3 or 6 of them. Raises Refusal."""
    found = f"replicas {', '.join(map(str, indexes)) or 'none'}"
    if indexes != list(range(len(indexes))) or not indexes:
        raise Refusal(
            f"{PREFIX}X_IP",
            expected="replicas numbered 0, 1, 2, ... without a gap",
            found=found,
            fix=f"number the {PREFIX}X_ variables from 0",
        )
    if len(indexes) not in REPLICA_COUNTS:
        at_most = "a cluster has at most 6 replicas: use 3 or 6"
        advice = REPLICA_COUNT_ADVICE.get(len(indexes), at_most)
        raise Refusal(f"{PREFIX}X_IP", expected="1, 3 or 6 replicas", found=found, fix=advice)


def _check_unique(cluster: Cluster, field: str, suffix: str) -> None:
    """No two replicas share a name, an IP (each is one host), or, on one machine, a port."""
    seen: dict[object, int] = {}
    for replica in cluster.replicas:
        value = getattr(replica, field)
        if value in seen:
            raise Refusal(
                f"{PREFIX}{replica.index}_{suffix}",
                expected=f"one that differs from replica {seen[value]}'s",
                found=f"{value} on both",
                fix="give each replica its own",
            )
        seen[value] = replica.index


def _check_addresses(cluster: Cluster, addresses: str | None) -> None:
    for replica in cluster.replicas:
        if replica.ip not in cluster.subnet:
            raise Refusal(
                f"{PREFIX}{replica.index}_IP",
                expected=f"an address inside {cluster.subnet}",
                found=replica.ip,
                fix=f"correct it, or {PREFIX}SUBNET",
            )
    if addresses != cluster.addresses:
        raise Refusal(
            f"{PREFIX}ADDRESSES",
            expected=f"{cluster.addresses} (IP:PORT of each replica, in order)",
            found=addresses or "nothing",
            fix="write the replicas in order: the position in this list is a replica's identity",
        )


def _check_memory(cluster: Cluster) -> None:
    if not GRID_MIN_BYTES <= size_bytes(cluster.cache_grid) <= GRID_MAX_BYTES:
        raise Refusal(
            f"{PREFIX}CACHE_GRID",
            expected="from 32MiB to 2047TiB, what the server takes",
            found=cluster.cache_grid,
            fix="set it to 512MiB, or to what the machine has to spare",
        )
    if size_bytes(cluster.memory_limit) >= 2**63:
        wanted, fix = "less than 8EiB, which is all that can be counted", "set it to 3GiB"
        raise Refusal(f"{PREFIX}MEMORY_LIMIT", expected=wanted, found=cluster.memory_limit, fix=fix)
    if cluster.memlock == 0:
        wanted = "a number of bytes, or -1 for unlimited: with 0 no server starts"
        fix = "set it to -1, or to the engine's own limit, such as 8388608"
        raise Refusal(f"{PREFIX}MEMLOCK", expected=wanted, found=0, fix=fix)
    needed = memory_bytes(cluster)
    if size_bytes(cluster.memory_limit) < needed:
        raise Refusal(
            f"{PREFIX}MEMORY_LIMIT",
            expected=f"at least {-(-needed // 1024**2)}MiB, what a replica with "
            f"{cluster.cache_grid} of grid cache takes",
            found=cluster.memory_limit,
            fix=f"raise it, or lower {PREFIX}CACHE_GRID",
        )


def _check_image(cluster: Cluster) -> None:
    """Our emulator never runs under a name that could be taken for TigerBeetle's."""
    if cluster.is_emulator_image and "emulator" not in cluster.custom_image:
        raise Refusal(
            f"{PREFIX}CUSTOM_IMAGE",
            expected=f"a name with 'emulator' in it, since {PREFIX}IMAGE is the emulator's",
            found=cluster.custom_image,
            fix="set it to tigerbeetle-emulator-custom",
        )
