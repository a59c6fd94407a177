"""The machine as testinfra sees it: pid files, /proc and log files, not the code under test."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import Replica
from cluster.inventory import Deployment

_LISTEN = "0A"  # include/net/tcp_states.h
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class World:
    """Questions about a deployment whose replicas are processes on this machine."""

    host: Any
    deployment: Deployment

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

    def proc(self, replica: Replica, name: str) -> str:
        """``/proc/<pid>/<name>``, NULs as spaces."""
        content: bytes = self.host.file(f"/proc/{self.pid(replica)}/{name}").content
        return content.replace(b"\0", b" ").decode()

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


def _address(text: str) -> tuple[str, int]:
    """``0100007F:0BB8`` → ("127.0.0.1", 3000); IPv6 words are host order, 32 bits each."""
    ip, _, port = text.partition(":")
    words = [int(ip[i : i + 8], 16) for i in range(0, len(ip), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
