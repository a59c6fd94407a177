"""What is really there, as testinfra sees it: pid files, /proc, log files, docker inspect; not the
code under test.

A container's processes may be of a machine that cannot be seen (Docker Desktop, an engine
elsewhere), or another user's: they are looked at from a container beside them, on every engine.
"""

from __future__ import annotations

import re
import shlex
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from testinfra.backend.ssh import SshBackend
from testinfra.host import Host

from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.config.servers import Server
from cluster.runtimes import of, ssh
from cluster.runtimes.container import InContainer

_LISTEN = "0A"  # include/net/tcp_states.h
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
#: Prints, from within a container's namespace of processes, who the first one is, and all about its
#: children. None of what must be there is left out: a file that cannot be read ends it.
_LOOK = r"""
set -eu
cd /proc
echo "== 1 comm"; cat 1/comm
for pid in $(grep -l '^PPid:[[:space:]]*1$' [0-9]*/status | cut -d/ -f1); do
  for name in cmdline environ status net/tcp; do
    echo "== $pid $name"; tr '\0' ' ' <$pid/$name; echo
  done
  echo "== $pid net/tcp6"; test ! -e $pid/net/tcp6 || cat $pid/net/tcp6
  echo "== $pid fd"; ls -l $pid/fd
done
"""
_LOOKED = re.compile(r"^== (\d+) (\S+)$", re.MULTILINE)


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

    def open_files(self, replica: Replica) -> str:
        """What the server has open, a line each."""
        found: str = self.at(replica).check_output("ls -l /proc/%s/fd", str(self.pid(replica)))
        return found

    def status(self, replica: Replica, field: str) -> str:
        """A field of the server's ``/proc/<pid>/status``."""
        found = re.search(rf"^{field}:\s+(.*)$", self.proc(replica, "status"), re.MULTILINE)
        assert found, field
        return found[1]

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Every TCP address on which the replica's process accepts connections."""
        own = set(_SOCKET_LINK.findall(self.open_files(replica)))
        return {address for address, inode in self._listeners(replica) if inode in own}

    def _listeners(self, replica: Replica) -> Iterator[tuple[tuple[str, int], str]]:
        """All that listens in the process's network: its address, and its socket's inode."""
        for table in ("net/tcp", "net/tcp6"):
            for line in self.proc(replica, table).splitlines()[1:]:
                fields = line.split()
                if fields and fields[3] == _LISTEN:
                    yield _address(fields[1]), fields[9]


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


@dataclass(frozen=True)
class ContainerWorld(World):
    """Replicas that are containers on this machine: by what the engine says, and from beside them.

    What is read of a process is read once, by a container that shares its processes and may look.
    """

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

    def first(self, replica: Replica) -> str:
        """The name of the container's first process."""
        return self._looked(replica)[1, "comm"].strip()

    def pid(self, replica: Replica) -> int:
        """The server's pid in its container: the only child of the first process."""
        (pid,) = {pid for pid, name in self._looked(replica) if name == "status"}
        return pid

    def proc(self, replica: Replica, name: str) -> str:
        """As it was when the container was looked at."""
        return self._looked(replica)[self.pid(replica), name]

    def open_files(self, replica: Replica) -> str:
        """As they were when the container was looked at."""
        return self.proc(replica, "fd")

    def inside(self, replica: Replica, script: str) -> Any:
        """Run a shell line in the replica's container."""
        return self.at(replica).run("docker exec %s sh -c %s", replica.name, script)

    def listening(self, replica: Replica) -> set[tuple[str, int]]:
        """Every TCP address on which anything in the container accepts connections.

        Docker's own resolver, on 127.0.0.11, is in every container.
        """
        found = {address for address, _ in self._listeners(replica)}
        return {(ip, port) for ip, port in found if ip != "127.0.0.11"}

    def _looked(self, replica: Replica) -> dict[tuple[int, str], str]:
        return _looked(self.at(replica), replica.name)


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


@dataclass(frozen=True)
class UnitWorld(ServerWorld):
    """Replicas that are systemd units."""

    def show(self, replica: Replica, setting: str) -> str:
        """One property of the unit, as systemd has it."""
        return _shown(self.at(replica), replica.name)[setting]

    def log(self, replica: Replica) -> str:
        """The unit's whole journal, as far as it is kept."""
        return _journal(self.at(replica), replica.name)

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
        return World.listening(self, replica)


def seen(host: Any, deployment: Deployment) -> World:
    """Whichever runtime it is: its class says whether replicas are containers."""
    if isinstance(of(deployment), InContainer):
        return (ServerContainerWorld if deployment.servers else ContainerWorld)(host, deployment)
    return (UnitWorld if deployment.servers else ProcessWorld)(host, deployment)


@cache
def _looked(host: Any, container: str) -> dict[tuple[int, str], str]:
    """(pid in the container, file of its /proc) → what is in it."""
    (image,) = host.check_output("docker inspect --format '{{.Image}}' %s", container).split()
    said = host.check_output(
        "docker run --rm --pid=container:%s --network=none --read-only --user=0 --cap-drop=ALL"
        " --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH --entrypoint=sh %s -c %s",
        container,
        image,
        _LOOK,
    )
    parts = _LOOKED.split(said)
    keys = zip(map(int, parts[1::3]), parts[2::3], strict=True)
    return {key: text.strip("\n") for key, text in zip(keys, parts[3::3], strict=True)}


@cache
def _shown(host: Any, unit: str) -> dict[str, str]:
    """Every property of a unit, read once: each command takes a session of SSH and a sudo."""
    said = host.check_output("systemctl show --all %s.service", unit)
    pairs = (line.partition("=") for line in said.splitlines())
    return {name: value for name, _, value in pairs}


@cache
def _journal(host: Any, unit: str) -> str:
    """All that a unit has said, read once."""
    said: str = host.check_output(
        "journalctl --namespace=tigerbeetle --unit=%s --output=cat --no-pager", unit
    )
    return said


@cache
def _login(server: Server) -> Any:
    """testinfra's view of a server, through its own backend and the connection that all share."""
    *options, hostname = ssh.shared(server)[1:]
    host = f"[{hostname}]" if ":" in hostname else hostname
    return Host(_Quiet(host, ssh_extra_args=shlex.join(options), sudo=server.sudo))


class _Quiet(SshBackend):  # type: ignore[misc]  # it has no types
    """testinfra's backend over SSH, without what a login prints before the command does."""

    def run(self, command: str, *args: str, **_: Any) -> Any:
        done = self.run_ssh(f"echo {shlex.quote(ssh.MARK)}; {self.get_command(command, *args)}")
        _, mark, said = done.stdout_bytes.partition(f"{ssh.MARK}\n".encode())
        assert mark, done
        return self.result(done.rc, done.command, said, done.stderr_bytes)


def _address(text: str) -> tuple[str, int]:
    """``0100007F:0BB8`` → ("127.0.0.1", 3000); IPv6 words are host order, 32 bits each."""
    ip, _, port = text.partition(":")
    words = [int(ip[i : i + 8], 16) for i in range(0, len(ip), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
