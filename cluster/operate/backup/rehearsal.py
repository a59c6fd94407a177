"""A copy of a cluster in another place, for a rehearsal: who must not be able to reach it. Pure.

The copy has the original's cluster id, since its data files have it. So a client or a replica of
the original that reached the copy would take it for the original: it would be told of an old
ledger as of the true one, and what it writes there would be lost with the copy. TigerBeetle has
nothing that could tell the two apart, but the network has: addresses, and the copy's firewall.
"""

from __future__ import annotations

from cluster.config.deployment import Deployment
from cluster.refusal import Refusal

_WHAT = "a copy for a rehearsal"


def refuse_within_reach(original: Deployment, copy: Deployment) -> None:
    """Refuse a copy that is the original, or that its replicas or clients could reach.

    Raises Refusal.
    """
    if copy.name == original.name:
        _refuse(
            f"another deployment's name than {original.name!r}: state, backups and timers have it",
            f"{copy.file} of the same",
            "give the copy a name, an env file and an inventory of its own",
        )
    if copy.servers:
        _refuse_shared_servers(original, copy)
        _refuse_clients(original, copy)
    else:
        _refuse_shared_addresses(original, copy)
        if copy.runtime == "compose" and not copy.cluster.bind.is_loopback:
            _refuse(
                "ports that are published for this machine alone",
                f"them at {copy.cluster.bind}",
                "set LU_CFG_TIGERBEETLE_BIND=127.0.0.1 for it",
            )


def _refuse_shared_servers(original: Deployment, copy: Deployment) -> None:
    """Its own servers, whatever the port: a firewall lets replicas in by their address."""
    theirs = {str(replica.ip) for replica in original.listed}
    theirs |= {server.place for server in original.servers}
    for replica, server in zip(copy.cluster.replicas, copy.servers, strict=True):
        for each in (str(replica.ip), server.place):
            if each in theirs:
                _refuse_address(f"{each}, which {original.name} has")


def _refuse_shared_addresses(original: Deployment, copy: Deployment) -> None:
    theirs = {replica.address for replica in (*original.listed, *original.cluster.replicas)}
    for replica in copy.listed:
        if replica.address in theirs:
            _refuse_address(f"{replica.address}, which {original.name} has")


def _refuse_address(found: str) -> None:
    fix = "give the copy addresses of its own"
    _refuse("addresses at which no client or replica of the original looks", found, fix)


def _refuse_clients(original: Deployment, copy: Deployment) -> None:
    """Its firewall lets in whom ``clients`` names: nobody of the original's."""
    clients, theirs = copy.of_servers.clients, original.settings
    wanted, fix = "a firewall that keeps the original out", f"take it out of {copy.file}"
    for network in clients:
        for replica in original.cluster.replicas if theirs else ():
            if replica.ip in network:
                found = f"clients={network}, which has {original.name}'s {replica.name}"
                _refuse(wanted, found, fix)
        for other in theirs.clients if theirs else ():
            if network.overlaps(other):
                found = f"clients={network}, which has {original.name}'s clients {other}"
                _refuse(wanted, found, f"{fix}; from here it is reached through SSH")


def _refuse(expected: str, found: str, fix: str) -> None:
    raise Refusal(_WHAT, expected=expected, found=found, fix=fix)
