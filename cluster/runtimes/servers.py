"""Replicas on servers of their own, one on each, reached over SSH: what their runtimes share.

A server is given a file to run its replica by: a systemd unit, or a Compose file. It carries the
fingerprint of what it was made of, and so does the process or container that runs from it: equal
ones need no restart.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cluster import REPOSITORY
from cluster.config import model
from cluster.config.servers import Server
from cluster.runtimes import layout, ssh
from cluster.runtimes.base import ReplicaProcess, Runtime, Todo, rendered

TEMPLATES = REPOSITORY / "files" / "tigerbeetle"
#: Set for the unit's process, and read from its /proc/<pid>/environ.
SETTINGS_VARIABLE = "WALLET_SERVICE_SETTINGS"
SETTINGS_LABEL = "wallet-service.settings"

#: Of a server that cannot be asked: it is out of reach, or there and lets nobody in. Either may be
#: restarting, so waiting on is of use.
UNREACHABLE = ReplicaProcess("UNREACHABLE", 0)
REFUSED_BY_SSH = ReplicaProcess("REFUSED BY SSH", 0)
LINES_MAX = 20_000
#: Each probe of the port leaves this line; weeks of them would hide what was said before.
_NOISE = "orderly shutdown"


class OnServers(Runtime):
    """Asked with this machine's `ssh`, changed through pyinfra."""

    #: Nobody starts these again.
    GIVEN_UP = frozenset({"FATAL", "EXITED", "CREATED", "DEAD"})
    DISK_SETTING = "data_dir"
    WHERE = "servers"
    #: The option of ``log_command`` that says how many lines.
    LINES_OPTION = "--tail"

    @property
    def new(self) -> str:
        """Meant only by who says so: a disk that is not mounted looks like a new server."""
        return f"{self.up} BOOTSTRAP=yes"

    @property
    def place(self) -> str:
        """Their names and disks may change."""
        return "on any server"

    @abstractmethod
    def state_command(self, index: int) -> str:
        """What prints the state, for ``parse_state``."""

    @staticmethod
    @abstractmethod
    def parse_state(output: str) -> ReplicaProcess | None:
        """The state; None where nothing of the deployment is."""

    @abstractmethod
    def log_command(self, index: int, *options: str) -> str:
        """What prints the replica's log."""

    @staticmethod
    @abstractmethod
    def log_options(mark: str) -> list[str]:
        """What makes ``log_command`` begin behind ``mark``, if any, and say where it ends."""

    @staticmethod
    @abstractmethod
    def marked(said: Sequence[str], mark: str) -> tuple[list[str], str]:
        """The log's own lines in what it printed so, and the new mark."""

    @abstractmethod
    def described(self, index: int) -> str:
        """The file that it runs by. Raises what a program or an image that is not there raises."""

    def states(self) -> dict[int, ReplicaProcess] | None:
        """Asked of all servers together."""

        def ask(server: Server) -> ReplicaProcess | None:
            try:
                return self.parse_state(ssh.run(server, self.state_command(server.replica)).stdout)
            except ssh.SshError as error:
                is_there = isinstance(error, ssh.RefusedBySshError)
                return REFUSED_BY_SSH if is_there else UNREACHABLE

        found = ssh.on_each(self.deployment, ask)
        return {index: process for index, process in found.items() if process is not None} or None

    def check_up(self) -> None:
        """Their addresses are their own."""

    def log_source(self, index: int) -> str:
        """The command to type."""
        return f"ssh {self.deployment.servers[index].hostname} {self.log_command(index)}"

    def log_after(self, index: int, mark: str) -> tuple[Sequence[str], str]:
        """The newest lines that the server still keeps, without those that probes leave."""
        log = f"{self.log_command(index, *self.log_options(mark))} 2>&1"
        quiet = f"{log} | grep -v {shlex.quote(_NOISE)} | tail -n {LINES_MAX}"
        return self.marked(self._lines(index, quiet), mark)

    def log_tail(self, index: int, lines: int = 15) -> list[str]:
        """The last lines. Raises SshError."""
        script = f"{self.log_command(index)} 2>&1 | tail -n {lines}"
        return ssh.run(self.deployment.servers[index], script).stdout.splitlines()

    def follow(self, indexes: Sequence[int], lines: int) -> int:
        """All servers' together, each line behind its replica's name."""
        tell = partial(print, file=sys.stderr, flush=True)

        def begin(index: int) -> subprocess.Popen[bytes] | None:
            server = self.deployment.servers[index]
            try:
                login = ssh.shared(server)
            except ssh.SshError as away:
                tell(f"replica {index}: its log is not followed: {away}")
                return None
            log = self.log_command(index, "--follow", f"{self.LINES_OPTION}={lines}")
            shown = f"{log} 2>&1 | sed -u {shlex.quote(f's/^/replica-{index} | /')}"
            # A quiet log has nothing to write, and so would never notice that nobody reads it any
            # more: it ends when our end of its input does.
            script = f"exec 3<&0; {{ cat <&3; kill 0; }} >/dev/null 2>&1 & {shown}"
            return subprocess.Popen(
                [*login, ssh.line(server, script)],
                stdin=subprocess.PIPE,  # open for as long as this program lives
            )

        def await_end(index: int, follower: subprocess.Popen[bytes] | None) -> int:
            if follower is None:
                return 1
            code = follower.wait()
            if code == ssh.FAILED:
                tell(
                    f"replica {index}: its log ends here, since its server "
                    f"{self.deployment.servers[index].hostname} does not answer. "
                    f"Fix: make status {self.deployment.named}, and follow again when it is back"
                )
            return code

        followers = list(map(begin, indexes))
        with ThreadPoolExecutor(len(followers)) as together:
            try:
                return min(max(together.map(await_end, indexes, followers)), 1)
            finally:
                for follower in filter(None, followers):
                    follower.terminate()

    def bootstrap_marker(self, index: int) -> str:
        """One on each server, from before the first format until all have been formatted."""
        return f"{layout.directory(self.deployment, index)}/bootstrapping"

    def backup_directory(self, wanted: Path) -> Path:
        """On the disk of the data file; it travels between there and here."""
        return Path(layout.data_dir(self.deployment)) / "backup"

    def prepare(self, index: int) -> str:
        """The replica's own directory, private."""
        path = shlex.quote(layout.directory(self.deployment, index))
        return f"install -d -m 0700 -o {layout.UID} -g {layout.UID} {path}"

    def todo(self, marks: Mapping[int, str]) -> Todo | None:
        """Those that said nothing are stopped; other settings have another fingerprint."""
        indexes = {replica.index for replica in self.cluster.replicas}
        wanted = {index: fingerprint(self.described(index)) for index in marks}
        return Todo(indexes - marks.keys(), {i for i in marks if marks[i] != wanted[i]})

    def rendered(self, template: str, index: int, values: dict[str, Any]) -> str:
        """A file made from settings; ``fingerprint`` reads from it which ones."""
        replica = self.cluster.replicas[index]
        everything = {
            "label": self.deployment.label,
            "index": index,
            "cluster_id": self.cluster.id,
            "name": replica.name,
            "ip": str(replica.ip),
            "port": replica.port,
            "directory": layout.directory(self.deployment, index),
            "user": layout.USER,
            "uid": layout.UID,
            "memory_bytes": model.size_bytes(self.cluster.memory_limit),
            "settings_variable": SETTINGS_VARIABLE,
            **values,
        }
        source = (TEMPLATES / template).read_text()
        made_of = json.dumps([source, everything], sort_keys=True)
        mark = hashlib.sha256(made_of.encode()).hexdigest()[:16]
        return rendered(source, {**everything, "fingerprint": mark})

    def _lines(self, index: int, script: str) -> list[str]:
        try:
            return ssh.run(self.deployment.servers[index], script).stdout.splitlines()
        except ssh.SshError:
            return []


def fingerprint(text: str) -> str:
    """The fingerprint in a unit or a Compose file."""
    for line in text.splitlines():
        for key in (f"Environment={SETTINGS_VARIABLE}=", f"{SETTINGS_LABEL}: "):
            if line.strip().startswith(key):
                return line.strip().removeprefix(key).strip('"')
    raise ValueError("a description without a fingerprint")
