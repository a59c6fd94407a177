"""What is really there, as testinfra sees it: pid files, /proc, log files, docker inspect; not the
code under test.
"""

from __future__ import annotations

import re
import shlex
import socket
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import testinfra

from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.config.servers import Server
from cluster.runtimes import of
from cluster.runtimes.container import InContainer

_LISTEN = "0A"  # include/net/tcp_states.h
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class World:
    """Questions about any deployment on this machine."""

    host: Any
    deployment: Deployment

    def at(self, replica: Replica) -> Any:
        """The machine that runs the replica, as testinfra sees it."""
        return self.host

    def log(self, replica: Replica) -> str:
        """The replica's whole log, as far as it is kept."""
        raise NotImplementedError

    def pid(self, replica: Replica) -> int:
        """The server's process id."""
        raise NotImplementedError

    def proc(self, replica: Replica, name: str) -> str:
        """``/proc/<pid>/<name>``, NULs as spaces."""
        content: bytes = self.at(replica).file(f"/proc/{self.pid(replica)}/{name}").content
        return content.replace(b"\0", b" ").decode()

    def status(self, replica: Replica, field: str) -> str:
        """A field of the server's ``/proc/<pid>/status``."""
        found = re.search(rf"^{field}:\s+(.*)$", self.proc(replica, "status"), re.MULTILINE)
        assert found, field
        return found[1]


@dataclass(frozen=True)
class ProcessWorld(World):
    """Replicas that are processes on this machine: by their files."""

    def directory(self, replica: Replica) -> Path:
        """Where the replica keeps its things."""
        return self.deployment.state_dir / f"replica-{replica.index}"

    def data_file(self, replica: Replica) -> Any:
        """The replica's data file, as testinfra sees it."""
        name = f"{self.deployment.cluster.id}_{replica.index}.tigerbeetle"
        return self.host.file(str(self.directory(replica) / name))

    def log(self, replica: Replica) -> str:
        """The replica's whole current log."""
        content: str = self.host.file(str(self.directory(replica) / "replica.log")).content_string
        return content

    def pid(self, replica: Replica) -> int:
        """The process id in the replica's pid file."""
        return int(self.host.file(str(self.directory(replica) / "replica.pid")).content_string)

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Every TCP address on which the replica's process accepts connections."""
        links = self.host.check_output("ls -l /proc/%s/fd", str(self.pid(replica)))
        own = set(_SOCKET_LINK.findall(links))
        found = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in self.host.file(table).content_string.splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in own:
                    found.add(_address(fields[1]))
        return found


@dataclass(frozen=True)
class ContainerWorld(World):
    """Replicas that are containers on this machine: by what the engine says, and by /proc."""

    def inspect(self, replica: Replica) -> dict[str, Any]:
        """Everything that the engine knows of the replica's container."""
        found: dict[str, Any] = self.at(replica).docker(replica.name).inspect()
        return found

    def log(self, replica: Replica) -> str:
        """The container's whole log, as far as Docker keeps it."""
        done = self.at(replica).run("docker logs %s 2>&1", replica.name)
        assert done.rc == 0
        text: str = done.stdout
        return text

    def pid(self, replica: Replica) -> int:
        """The server's pid on this machine: the container's first process is tini."""
        first = self.inspect(replica)["State"]["Pid"]
        return int(self.at(replica).check_output("pgrep --parent %s", str(first)))

    def inside(self, replica: Replica, script: str) -> Any:
        """Run a shell line in the replica's container."""
        return self.at(replica).run("docker exec %s sh -c %s", replica.name, script)

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Every TCP address on which the container's network namespace accepts connections.

        Docker's own resolver, on 127.0.0.11, is in every container.
        """
        found = set()
        for table in ("net/tcp", "net/tcp6"):
            for line in self.proc(replica, table).splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    found.add(_address(fields[1]))
        return {(ip, port) for ip, port in found if ip != "127.0.0.11"}


@dataclass(frozen=True)
class ServerWorld(World):
    """Replicas on servers of their own: over SSH, through testinfra's own backend."""

    def at(self, replica: Replica) -> Any:
        """The replica's server."""
        return _login(self.deployment.servers[replica.index])

    def directory(self, replica: Replica) -> str:
        """Where the replica keeps its data file."""
        assert self.deployment.settings
        return f"{self.deployment.settings.data_dir}/replica-{replica.index}"

    def data_file(self, replica: Replica) -> Any:
        """The replica's data file, as testinfra sees it."""
        name = f"{self.deployment.cluster.id}_{replica.index}.tigerbeetle"
        return self.at(replica).file(f"{self.directory(replica)}/{name}")

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Every TCP address on which the replica's process accepts connections."""
        links = self.at(replica).check_output("ls -l /proc/%s/fd", str(self.pid(replica)))
        own = set(_SOCKET_LINK.findall(links))
        found = set()
        for table in ("net/tcp", "net/tcp6"):
            for line in self.proc(replica, table).splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in own:
                    found.add(_address(fields[1]))
        return found


@dataclass(frozen=True)
class UnitWorld(ServerWorld):
    """Replicas that are systemd units."""

    def show(self, replica: Replica, setting: str) -> str:
        """One property of the unit, as systemd has it."""
        return str(
            self.at(replica).check_output(
                "systemctl show %s.service --value --property=%s", replica.name, setting
            )
        )

    def log(self, replica: Replica) -> str:
        """The unit's whole journal, as far as it is kept."""
        return str(
            self.at(replica).check_output(
                "journalctl --namespace=tigerbeetle --unit=%s --output=cat --no-pager", replica.name
            )
        )

    def pid(self, replica: Replica) -> int:
        """The unit's main process."""
        return int(self.show(replica, "MainPID"))


@dataclass(frozen=True)
class ServerContainerWorld(ContainerWorld, ServerWorld):
    """Replicas that are containers on servers: asked there, in the same words."""

    def at(self, replica: Replica) -> Any:
        """The replica's server."""
        return ServerWorld.at(self, replica)

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Of the process alone: the network is the whole server's."""
        return ServerWorld.listening(self, replica)


def seen(host: Any, deployment: Deployment) -> World:
    """Whichever runtime it is: its class says whether replicas are containers."""
    if isinstance(of(deployment), InContainer):
        return (ServerContainerWorld if deployment.servers else ContainerWorld)(host, deployment)
    return (UnitWorld if deployment.servers else ProcessWorld)(host, deployment)


@cache
def _login(server: Server) -> Any:
    """testinfra's view of a server, over one SSH connection that it keeps for a minute."""
    arguments = ["-o BatchMode=yes", "-o StrictHostKeyChecking=accept-new"]
    if server.known_hosts:
        arguments.append(f"-o UserKnownHostsFile={shlex.quote(server.known_hosts)}")
    return testinfra.get_host(
        f"ssh://{server.user}@{server.hostname}:{server.port}",
        ssh_identity_file=server.key or None,
        ssh_extra_args=" ".join(arguments),
        sudo=server.sudo,
    )


def _address(text: str) -> tuple[str, int]:
    """``0100007F:0BB8`` → ("127.0.0.1", 3000); IPv6 words are host order, 32 bits each."""
    ip, _, port = text.partition(":")
    words = [int(ip[i : i + 8], 16) for i in range(0, len(ip), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
