"""One deployment: a cluster, what runs it, where, and how its replicas are reached. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from cluster import REPOSITORY, config
from cluster.config import Cluster, Replica
from cluster.config.repository import Repository
from cluster.config.servers import Host, Server, Settings
from cluster.refusal import Refusal

Engine = Literal["tigerbeetle", "emulator"]
Runtime = Literal["process", "compose", "systemd", "docker"]

#: The runtimes of servers over SSH; the others run on this machine.
ON_SERVERS: tuple[Runtime, ...] = ("systemd", "docker")

#: What a person is told about each engine, wherever an engine is named.
ENGINE_LABELS: Mapping[Engine, str] = {
    "tigerbeetle": "TigerBeetle",
    "emulator": "EMULATOR (one node, no replication, not TigerBeetle)",
}


class Deployment(BaseModel, frozen=True):
    """One inventory's cluster. ``cluster`` has its replicas as they list one another."""

    name: str
    engine: Engine
    runtime: Runtime
    cluster: Cluster
    state_dir: Path
    #: The inventory that says all this; where none was read, the one that is called so.
    inventory: Path = Field(
        default_factory=lambda known: REPOSITORY / "inventories" / f"{known['name']}.py"
    )
    env_file: Path = config.ENV_FILE
    #: Where its backups go instead of this machine's disk.
    repository: Repository | None = None
    #: One per replica, in order; none for replicas on this machine.
    servers: tuple[Server, ...] = ()
    settings: Settings | None = None
    #: Where the replicas on servers are watched from, if anywhere.
    monitoring: Host | None = None
    #: Where its load comes from, instead of this machine.
    load_hosts: tuple[Host, ...] = ()
    #: The replicas at ports of this machine, where those are not their own.
    published: tuple[Replica, ...] = ()
    #: The replicas at this program's ends of tunnels: see ``cluster.runtimes.tunnel``.
    tunnelled: tuple[Replica, ...] = ()

    @property
    def label(self) -> str:
        """The engine, as a report must name it."""
        return ENGINE_LABELS[self.engine]

    @property
    def whose(self) -> str:
        """The cluster, in words that tell it from every other: whose a run or a backup is."""
        return f"cluster {self.cluster.id} ({self.name}, {self.engine})"

    @property
    def is_emulator(self) -> bool:
        """One node without replication, a Python program: not TigerBeetle."""
        return self.engine == "emulator"

    @property
    def file(self) -> str:
        """The inventory as a person types it behind ``INVENTORY=``."""
        return config.shown(self.inventory)

    @property
    def named(self) -> str:
        """``INVENTORY=`` and the file, to be pasted into a shell."""
        return f"INVENTORY={shlex.quote(self.file)}"

    @property
    def of_servers(self) -> Settings:
        """What the inventory says of its servers. Raises Refusal for one of this machine."""
        if self.settings is None:
            raise Refusal(
                f"{self.name}: expected an inventory of servers, found one of this machine, whose "
                "replicas are reached from here alone. Fix: name another with INVENTORY="
            )
        return self.settings

    @property
    def is_rehearsal(self) -> bool:
        """Of servers, for a rehearsal: one machine may stand in for several."""
        return self.settings is not None and self.settings.development

    @property
    def checks_clocks(self) -> bool:
        """Servers have clocks of their own, which a time service keeps right."""
        return self.settings is not None and self.settings.check_clock

    @property
    def has_node_exporters(self) -> bool:
        """The servers' disks and clocks are watched, too."""
        return self.settings is not None and self.settings.node_exporter

    @property
    def alertmanagers(self) -> tuple[str, ...]:
        """Who is told of an alert."""
        return self.settings.alertmanagers if self.settings else ()

    def require_replication(self, what: str, fix: str) -> None:
        """Raises Refusal for the emulator, where ``what`` needs replicas."""
        if self.is_emulator:
            raise Refusal(
                f"{what}: expected a TigerBeetle cluster, found the EMULATOR: it is one node "
                f"without replication. Fix: {fix}"
            )

    @property
    def peers(self) -> str:
        """The addresses with which the replicas list one another."""
        return self.cluster.addresses

    @property
    def listed(self) -> tuple[Replica, ...]:
        """The replicas where clients find them, whoever runs this: what is shown and recorded."""
        return self.published or self.cluster.replicas

    @property
    def clients(self) -> tuple[Replica, ...]:
        """The replicas where this program reaches them, while it lives."""
        return self.tunnelled or self.listed

    @property
    def client_addresses(self) -> str:
        """``clients`` as TigerBeetle's own clients take them."""
        return config.addresses(self.clients)
