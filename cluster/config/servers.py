"""Servers of their own: one replica each, reached over SSH. What an inventory says about them.

An inventory file calls ``on_servers``; everything is validated there, before any connection. What
it returns is pyinfra's host data, so ``Server.of`` reads the same thing back everywhere else.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from cluster import REPOSITORY, config
from cluster.config import Cluster, kept, loading, model, pyinfra_hosts, rules, ways
from cluster.refusal import Refusal, told


class Settings(BaseModel, frozen=True, extra="forbid"):
    """What holds for all servers of an inventory; each field is a piece of host data."""

    engine: Literal["tigerbeetle", "emulator"] = Field(
        "tigerbeetle", description="tigerbeetle, or emulator: one node without replication"
    )
    env_file: str = Field(min_length=1, description="the private env file, see `make init-env`")
    runtime: Literal["systemd", "docker"] = Field(
        description="systemd (no Docker needed) or docker"
    )
    data_dir: str = Field(
        "/var/lib/tigerbeetle",
        pattern=r"^(/[A-Za-z0-9._-]+)+$",
        description="an absolute path of letters, digits, '.', '_' and '-'",
    )
    clients: tuple[IPv4Network, ...] = Field(
        (), description="networks such as 10.0.9.0/24, or addresses such as 10.0.9.7/32"
    )
    reach: Literal["auto", "direct", "tunnel"] = Field("auto", description="auto, direct or tunnel")
    image_from: Literal["ship", "build"] = Field("ship", description="ship or build")
    monitoring_host: str = Field(
        "", description="nothing, or the SSH name of a host apart from the replicas' servers"
    )
    monitoring_bind: IPv4Address = Field(
        IPv4Address("127.0.0.1"), description="one address of the monitoring host, not 0.0.0.0"
    )
    alertmanagers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:\d{1,5}$")], ...] = Field(
        (), description="HOST:PORT of your Alertmanagers, such as 10.0.0.30:9093"
    )
    load_hosts: tuple[str, ...] = Field(
        (), description="SSH names of hosts apart from the replicas' servers, such as 10.0.9.21"
    )
    node_exporter: bool = Field(
        False, description="True to watch the servers' disks and clocks too, or False"
    )
    check_clock: bool = Field(True, description="True, or False where no time service can run")
    development: bool = Field(False, description="False, or True for a rehearsal")


class Host(BaseModel, frozen=True):
    """How a host is reached: OpenSSH's words. Empty means SSH's own default."""

    hostname: str = Field(alias="ssh_hostname")
    user: str = Field("", alias="ssh_user")
    port: int = Field(ways.DEFAULT_PORT, alias="ssh_port")
    key: str = Field("", alias="ssh_key")
    known_hosts: str = Field("", alias="ssh_known_hosts_file")
    #: Instead of ``~/.ssh/config`` and the system's.
    config: str = Field("", alias="ssh_config_file")

    @property
    def place(self) -> str:
        """One machine, of several that may share an address."""
        return ways.Way(self.hostname, self.user, self.port).place

    sudo: bool = Field(False, alias="_sudo")


class Server(Host, frozen=True):
    """The host of one replica."""

    replica: int
    #: Its engine's own limit, where that may not grant the configured one.
    memlock: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Server:
        """The server that a pyinfra host's data describes."""
        return cls.model_validate({k: v for k, v in data.items() if v is not None})


def on_servers(
    name: str,
    *,
    ssh_hosts: Sequence[str] = (),
    ssh_user: str | None = "root",
    ssh_port: int | None = ways.DEFAULT_PORT,
    ssh_key: str = "",
    ssh_known_hosts_file: str = "",
    ssh_config_file: str = "",
    **settings: Any,
) -> list[tuple[str, dict[str, Any]]]:
    """The hosts of an inventory file for servers: one pyinfra host per replica, in replica order.

    ``ssh_hosts`` are their SSH names, each ``[user@]host[:port]``; without them, the replicas' own
    addresses. None for user or port is ssh_config's. Validates everything first: bad input ends the
    program with exit code 2.
    """
    files = {
        "ssh_key": ssh_key,
        "ssh_known_hosts_file": ssh_known_hosts_file,
        "ssh_config_file": ssh_config_file,
    }
    with told():
        valid = _validated(settings)
        cluster = load(valid)
        files = {key: str(kept.expanded(file)) for key, file in files.items() if file}
        names = tuple(ssh_hosts) or tuple(str(r.ip) for r in cluster.replicas)
        config = files.get("ssh_config_file", "")
        hosts = [ways.of(name, ssh_user, ssh_port, config) for name in names]
        check_hosts([host.place for host in hosts], cluster, is_development=valid.development)
        check_monitoring([host.hostname for host in hosts], cluster, valid)
        check_load_hosts([host.place for host in hosts], valid)
    common = {
        "deployment": name,
        "inventory_file": pyinfra_hosts.calling_file(),
        "bootstrap": False,  # only ever set on the command line, for one deployment
        **valid.model_dump(mode="json"),
        **files,
    }
    return [
        (replica.name, {**common, "replica": replica.index, **_login(host)})
        for replica, host in zip(cluster.replicas, hosts, strict=True)
    ]


def _login(way: ways.Way) -> dict[str, Any]:
    """The host data by which pyinfra logs in, and ``Host`` too."""
    login = {"ssh_hostname": way.hostname, "ssh_user": way.user, "ssh_port": way.port}
    return {**login, "_sudo": way.user != "root"}


def settings_of(data: Mapping[str, Any]) -> Settings:
    """The settings in a pyinfra host's data. Raises Refusal."""
    return _validated({k: data[k] for k in Settings.model_fields if data.get(k) is not None})


def env_path(settings: Settings) -> Path:
    """The env file's path; a relative one is inside the repository."""
    return REPOSITORY / kept.expanded(settings.env_file)


def load(settings: Settings) -> Cluster:
    """The Cluster in the inventory's private env file. Raises Refusal."""
    path = env_path(settings)
    if path.is_file() and not settings.development:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise Refusal(
                config.shown(path),
                expected="a file that only its owner can read (mode 600)",
                found=f"mode {mode:o}",
                fix=f"chmod 600 {shlex.quote(config.shown(path))}",
            )
    place = partial(rules.check_servers, is_development=settings.development)
    return config.load(path, check_place=place)


def check_hosts(hosts: Sequence[str], cluster: Cluster, *, is_development: bool) -> None:
    """One SSH host per replica, each another machine outside development. Raises Refusal."""
    if len(hosts) != len(cluster.replicas):
        raise Refusal(
            "ssh_hosts",
            expected=f"{len(cluster.replicas)} hosts, one per replica, in replica order",
            found=len(hosts),
            fix="name each replica's server once",
        )
    repeated = sorted({host for host in hosts if hosts.count(host) > 1})
    if repeated and not is_development:
        raise Refusal(
            "ssh_hosts",
            expected="a server of its own for each replica: one failure must not take two",
            found=f"{repeated[0]} for {hosts.count(repeated[0])} replicas",
            fix="name another server, or set development=True for a rehearsal",
        )


def check_monitoring(hosts: Sequence[str], cluster: Cluster, settings: Settings) -> None:
    """The monitoring host does not fail with a replica, and metrics reach it. Raises Refusal.

    Its address is the one in ``LU_CFG_TIGERBEETLE_STATSD``.
    """
    if settings.monitoring_bind.is_unspecified or settings.monitoring_bind.is_multicast:
        raise Refusal(
            "monitoring_bind",
            expected=str(Settings.model_fields["monitoring_bind"].description),
            found=settings.monitoring_bind,
            fix="name the one address that Prometheus is to be reached at: it asks no password",
        )
    if not settings.monitoring_host:
        if settings.node_exporter:
            wanted, fix = "a monitoring_host that reads it", "name one, or leave node_exporter out"
            raise Refusal("node_exporter", expected=wanted, found="none", fix=fix)
        return
    statsd = f"{config.PREFIX}STATSD"
    try:
        address, _ = monitoring_address(cluster)
    except ValueError:
        raise Refusal(
            statsd,
            expected=f"IP:PORT at {settings.monitoring_host}, where the replicas' metrics go",
            found=cluster.statsd or "nothing",
            fix=f"set it in {settings.env_file}, such as 10.0.0.20:8125",
        ) from None
    if address.is_loopback or address.is_unspecified or address in {r.ip for r in cluster.replicas}:
        raise Refusal(
            statsd,
            expected="an address of the monitoring host, apart from the replicas' servers",
            found=cluster.statsd,
            fix="name that host's own: it must not fail together with what it watches",
        )
    watching = ways.of(settings.monitoring_host, "root", ways.DEFAULT_PORT, what="monitoring_host")
    if watching.hostname in hosts:
        raise Refusal(
            "monitoring_host",
            expected=str(Settings.model_fields["monitoring_host"].description),
            found=f"{settings.monitoring_host}, a replica's",
            fix="name another: it must not fail together with what it watches",
        )


def check_load_hosts(servers: Sequence[str], settings: Settings) -> None:
    """Each is a machine of its own: a load beside a replica measures both. Raises Refusal."""
    places = [way.place for way in _load_ways(settings)]
    for place in places:
        if places.count(place) > 1 or (place in servers and not settings.development):
            raise Refusal(
                "load_hosts",
                expected=str(Settings.model_fields["load_hosts"].description),
                found=f"{place} twice" if places.count(place) > 1 else f"{place}, a replica's",
                fix="name each host once; PROCESSES= starts several workers on each"
                if places.count(place) > 1
                else "name another, or set development=True for a rehearsal",
            )


def load_hosts(settings: Settings, server: Server) -> tuple[Host, ...]:
    """How the load hosts are reached: as replica 0's server is, but for what a name says."""
    own = server.model_dump(by_alias=True)
    ways_ = _load_ways(settings, server.user, server.port)
    return tuple(Host.model_validate(own | _login(way)) for way in ways_)


def load_addresses(settings: Settings) -> list[IPv4Address]:
    """Those of the load hosts that are named by their address."""
    found = []
    for way in _load_ways(settings):
        with suppress(ValueError):
            found.append(IPv4Address(way.hostname))
    return found


def _load_ways(
    settings: Settings, user: str = "root", port: int = ways.DEFAULT_PORT
) -> list[ways.Way]:
    return [ways.of(name, user, port, what="load_hosts") for name in settings.load_hosts]


def monitoring_host(settings: Settings, server: Server) -> Host | None:
    """How the monitoring host is reached; None where there is none.

    As replica 0's server is, but for what its own name says: ``[user@]host[:port]``.
    """
    if not settings.monitoring_host:
        return None
    way = ways.of(settings.monitoring_host, server.user, server.port, what="monitoring_host")
    return Host.model_validate(server.model_dump(by_alias=True) | _login(way))


def monitoring_address(cluster: Cluster) -> tuple[IPv4Address, int]:
    """Where the replicas send their metrics. Raises ValueError when that is no address."""
    return model.socket_address(cluster.statsd)


def _validated(values: Mapping[str, Any]) -> Settings:
    fix = "correct it in the inventory; inventories/production.example.py explains each"
    return loading.build(Settings, "", values, fix)
