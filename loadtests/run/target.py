"""Which cluster is loaded: the inventory's, or any at these addresses; and the way to it.

A run records where clients find its cluster. Each program that then reads the ledger finds a way of
its own: this program's tunnels end with it.
"""

from __future__ import annotations

from cluster import config
from cluster.config import inventory
from cluster.config.deployment import ENGINE_LABELS
from cluster.refusal import Refusal
from cluster.runtimes import of, tunnel
from loadtests.run.result import Target

UNKNOWN_RELEASE = "not known"
UNDECLARED = "undeclared (addresses given by hand: what answers there is not known)"


def resolve(*, cluster_id: str | None, addresses: str | None, engine: str | None) -> Target:
    """Explicit addresses win over the inventory named by $INVENTORY.

    Raises Refusal.
    """
    if addresses:
        return by_hand(cluster_id or "0", addresses, engine)
    if cluster_id or engine:
        raise Refusal(
            "--cluster-id and --engine: expected only together with --addresses, found without. "
            "Fix: add --addresses, or choose the cluster with INVENTORY="
        )
    return of_inventory(None)


def of_inventory(file: str | None) -> Target:
    """The cluster of an inventory; default: $INVENTORY, else the emulator's. Raises Refusal."""
    deployment = inventory.read(file)
    return Target(
        deployment=deployment.name,
        engine=deployment.engine,
        label=deployment.label,
        release=deployment.cluster.release,
        cluster_id=str(deployment.cluster.id),
        addresses=config.addresses(deployment.listed),
        inventory=deployment.file,
    )


def way(target: Target, named: str | None = None, *, is_awaited: bool = False) -> str:
    """The addresses at which this program reaches the target, until it ends.

    Those of the inventory that a person has ``named`` as the target's; else as recorded, unless
    its inventory still describes this cluster, and says through what. Raises Refusal, also where it
    does not run, unless that ``is_awaited``.
    """
    file = named or target.inventory
    if not file or not inventory.locate(file).is_file():
        return target.addresses
    deployment = inventory.read(file)
    described = str(deployment.cluster.id), config.addresses(deployment.listed)
    if not named and described != (target.cluster_id, target.addresses):
        return target.addresses
    if not is_awaited:
        of(deployment).check_up()
    return tunnel.reached(deployment).client_addresses


def by_hand(cluster_id: str, addresses: str, engine: str | None) -> Target:
    """A target given by its addresses. Its engine is only declared, and the report says so."""
    if not cluster_id.isdecimal() or int(cluster_id) >= 1 << 128:
        fix = "use the number that the data files were formatted with"
        raise Refusal("--cluster-id", expected="0 to 2^128 - 1", found=repr(cluster_id), fix=fix)
    label = UNDECLARED
    if engine:
        known = {str(name): text for name, text in ENGINE_LABELS.items()}
        if engine not in known:
            wanted, fix = " or ".join(known), "name the one that answers there, or leave it out"
            raise Refusal("--engine", expected=wanted, found=repr(engine), fix=fix)
        label = f"{known[engine]} (as declared)"
    return Target(
        deployment="addresses",
        engine=engine or "undeclared",
        label=label,
        release=UNKNOWN_RELEASE,
        cluster_id=cluster_id,
        addresses=addresses,
    )
