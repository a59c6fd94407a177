"""Who may reach a replica's port, or the monitoring host's, as a table of nftables: text from
settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cluster import REPOSITORY
from cluster.config.model import Cluster, Replica
from cluster.config.servers import Settings, load_addresses, monitoring_address
from cluster.refusal import Refusal

#: The table's name, in the family ``inet``: IPv6 is closed too, as no replica listens there.
TABLE = "tigerbeetle"

#: The node exporter's usual port.
EXPORTER_PORT = 9100

_TEMPLATES = REPOSITORY / "files" / "firewall"
_EVERYBODY = IPv4Network("0.0.0.0/0")


def check(cluster: Cluster, clients: Sequence[IPv4Network], ssh_port: int) -> None:
    """Refuse rules that would shut SSH out, or let everybody in."""
    for replica in cluster.replicas:
        if replica.port == ssh_port:
            raise Refusal(
                "ssh_port",
                expected="another port than a replica's: the firewall keeps others out of that",
                found=f"{ssh_port}, also replica {replica.index}'s",
                fix="correct it, or give the replica another port",
            )
    if _EVERYBODY in clients:
        raise Refusal(
            "clients",
            expected="the networks of your clients: TigerBeetle itself lets everyone move money",
            found=f"{_EVERYBODY}, everybody",
            fix="name the networks, or only the addresses, from which clients come",
        )


def rules(
    cluster: Cluster, replica: Replica, clients: Sequence[IPv4Network], exporter: str = ""
) -> str:
    """The table for the server that holds ``replica``: what ``nft -f`` loads in one transaction.

    ``exporter``: the address that may read the node exporter, if there is one. In a rehearsal one
    server may hold several replicas: all their ports are in the table.
    """
    ports = {r.port for r in cluster.replicas if r.ip == replica.ip}
    return _render(cluster, clients, what="replica", protocol="tcp", ports=ports, exporter=exporter)


def monitoring_rules(cluster: Cluster, clients: Sequence[IPv4Network]) -> str:
    """The same for the monitoring host: who may send it metrics, and announce planned stops."""
    _, port = monitoring_address(cluster)
    return _render(cluster, clients, what="collector", protocol="udp", ports={port})


def admitted(cluster: Cluster, settings: Settings) -> list[IPv4Network]:
    """Whom the replicas' servers let in beside the replicas: clients, and who is one by its task.

    The monitoring host probes ports. Load hosts are clients, where their names are addresses.
    """
    others = [IPv4Network(address) for address in load_addresses(settings)]
    if settings.monitoring_host:
        others.insert(0, IPv4Network(monitoring_address(cluster)[0]))
    return [*settings.clients, *(other for other in others if other not in settings.clients)]


def _render(
    cluster: Cluster,
    clients: Sequence[IPv4Network],
    *,
    what: str,
    protocol: str,
    ports: set[int],
    exporter: str = "",
) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - nftables, not HTML; the values are addresses and numbers
    )
    return environment.get_template("firewall.nft.j2").render(
        table=TABLE,
        what=what,
        protocol=protocol,
        ports=sorted(ports),
        replicas=sorted({r.ip for r in cluster.replicas}),
        clients=clients,
        exporter=exporter,
        exporter_port=EXPORTER_PORT,
    )
