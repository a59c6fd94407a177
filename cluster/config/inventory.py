"""A pyinfra inventory, read as a Deployment: what runs where, and where it is reached.

Inventories are pyinfra's own files, and ``pyinfra_hosts`` reads them exactly as a deploy does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import DEFAULT_INVENTORY, REPOSITORY, config
from cluster.config import Cluster, kept, pyinfra_hosts, records, repository, servers
from cluster.config.deployment import ON_SERVERS, Deployment, Engine, Runtime
from cluster.config.servers import Server, Settings
from cluster.refusal import Refusal, understood

#: The host data that an inventory file gives each host, and that describes its deployment.
HOST_DATA = (
    "deployment",
    "bootstrap",
    "inventory_file",
    *Settings.model_fields,
    *(f.alias or name for name, f in Server.model_fields.items()),
)


def on_this_machine(name: str, *, engine: Engine, runtime: Runtime) -> list[tuple[str, object]]:
    """The hosts of an inventory file for this machine: one pyinfra host, all replicas on it.

    Validates the configuration first: a bad one ends the program with exit code 2.
    """
    config.load_or_exit()
    data = {"deployment": name, "engine": engine, "runtime": runtime}
    return [("@local", {**data, "inventory_file": pyinfra_hosts.calling_file()})]


def of_hosts(hosts: Sequence[Mapping[str, Any]]) -> Deployment:
    """The Deployment that the data of an inventory's pyinfra hosts describes. Raises Refusal.

    See ``runtimes.tunnel`` for a machine that must not reach servers' replicas at their addresses.
    """
    data = hosts[0]
    common = {"name": data["deployment"]}
    if file := data.get("inventory_file"):
        common["inventory"] = Path(file)
        known = records.of_name(common["name"])
        records.refuse_namesake(common["name"], Path(file), known, _carries)
    if data["runtime"] in ON_SERVERS:
        return _of_servers(hosts, common)
    configured = config.load()
    is_published = data["runtime"] == "compose"
    cluster = configured if is_published else configured.on_loopback()
    return Deployment(
        **common,
        engine=data["engine"],
        runtime=data["runtime"],
        cluster=cluster,
        state_dir=_state_dir(cluster, data["deployment"]),
        published=configured.as_published().replicas if is_published else (),
        repository=repository.of(config.ENV_FILE),
    )


def _of_servers(hosts: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> Deployment:
    settings = servers.settings_of(hosts[0])
    cluster = servers.load(settings)
    found = sorted(map(Server.of, hosts), key=lambda server: server.replica)
    servers.check_hosts([s.place for s in found], cluster, is_development=settings.development)
    return Deployment(
        **common,
        engine=settings.engine,
        runtime=settings.runtime,
        cluster=cluster,
        state_dir=_state_dir(cluster, common["name"]),
        env_file=servers.env_path(settings),
        servers=tuple(found),
        settings=settings,
        monitoring=servers.monitoring_host(settings, found[0]),
        load_hosts=servers.load_hosts(settings, found[0]),
        repository=repository.of(servers.env_path(settings), is_elsewhere=True),
    )


def _carries(file: Path, name: str) -> bool:
    """Whether an inventory file describes a deployment of this name, or may: it does not load."""
    try:
        hosts = pyinfra_hosts.read(file, cwd=REPOSITORY)
    except pyinfra_hosts.Unreadable:
        return True
    return name in {host.data.get("deployment") for host in hosts}


def _state_dir(cluster: Cluster, name: str) -> Path:
    return (REPOSITORY / cluster.data_dir / name).absolute()


def locate(path: str | Path | None = None) -> Path:
    """The file of an inventory; default: $INVENTORY, else the emulator's."""
    return REPOSITORY / kept.expanded(path or os.environ.get("INVENTORY") or DEFAULT_INVENTORY)


def read(path: str | Path | None = None) -> Deployment:
    """Read an inventory file; default: $INVENTORY, else the emulator's. Raises Refusal."""
    file = locate(path)
    if not file.is_file():
        here = sorted((REPOSITORY / "inventories").glob("*.py"))
        known = ", ".join(config.shown(f) for f in here if f.stem != "__init__")
        found = path or os.environ.get("INVENTORY")
        raise Refusal("INVENTORY", expected=known, found=found, fix="name one of them")
    try:
        members = pyinfra_hosts.read(file, cwd=REPOSITORY)
    except pyinfra_hosts.Unreadable as unreadable:
        message = str(unreadable)
        if message.startswith("error: "):
            raise Refusal(message.removeprefix("error: ")) from None
        raise _not_loading(file, message) from None
    if not members or not all(host.data.get("runtime") for host in members):
        raise _not_loading(file, "no hosts of on_this_machine() or on_servers()")
    fix = "see docs/servers.md, and the inventories beside it"
    with understood(file, expected="the host data of an inventory of this project", fix=fix):
        return of_hosts([host.data | {"inventory_file": file} for host in members])


def _not_loading(file: Path, found: str) -> Refusal:
    wanted = f"an inventory that loads: {file}"
    return Refusal("INVENTORY", expected=wanted, found=found, fix="correct what it names")
