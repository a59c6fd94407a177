"""Replicas as supervised processes on this machine, under a supervisor of the deployment's own.

It starts the replicas, and starts again what dies. Everything of a deployment is under its state
directory (mode 0700, git-ignored):

    supervisord.conf .log .pid   supervisor.sock
    bootstrapping                while the first format is under way: no replica ever started
    replica-0/   <cluster>_0.tigerbeetle   replica.log   replica.pid
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable, Collection, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

from supervisor.xmlrpc import SupervisorTransport

from cluster import REPOSITORY, config
from cluster.refusal import Refusal, understood
from cluster.runtimes.base import ReplicaProcess, Runtime, Todo, rendered, start_arguments
from cluster.tigerbeetle import binary

RUN_REPLICA = REPOSITORY / "files" / "tigerbeetle" / "run-replica.sh"
_TEMPLATE = REPOSITORY / "files" / "tigerbeetle" / "supervisord.conf.j2"

#: sun_path holds 108 bytes, and supervisor binds <socket>.<pid> before it renames.
SOCKET_PATH_MAX = 96
_TAIL = shutil.which("tail") or "tail"
_STOP_TRIES = 40
_STOP_DELAY_S = 0.5

Read = TypeVar("Read")


class Process(Runtime):
    """The runtime "process"."""

    #: Supervisor has given up, or there is none: nobody will start these again.
    GIVEN_UP = frozenset({"FATAL", "DOWN"})
    DESCRIPTION_MODE = "600"
    KEPT = "under its supervisor"
    WHERE = "processes"
    DISK_SETTING = f"{config.PREFIX}DATA_DIR"

    def directory(self, index: int) -> Path:
        """Replica ``index``'s own directory."""
        return self.deployment.state_dir / f"replica-{index}"

    def data_file(self, index: int) -> str:
        """The data file itself."""
        return str(self.directory(index) / self.data_file_name(index))

    @property
    def place(self) -> str:
        """The state directory, which may be on a disk of its own."""
        return f"in {config.shown(self.deployment.state_dir)}"

    def bootstrap_marker(self, index: int) -> str:
        """One for all replicas."""
        return str(self.deployment.state_dir / "bootstrapping")

    @property
    def socket_path(self) -> Path:
        """Supervisor's control socket."""
        return self.deployment.state_dir / "supervisor.sock"

    @property
    def config_path(self) -> Path:
        """Supervisor's configuration file."""
        return self.deployment.state_dir / "supervisord.conf"

    def check_place(self) -> None:
        """Ours alone, writable, and with a path short enough for supervisor's socket."""
        length = len(str(self.socket_path))
        if length > SOCKET_PATH_MAX:
            raise Refusal(
                f"{config.PREFIX}DATA_DIR: expected a socket path of at most {SOCKET_PATH_MAX} "
                f"characters, found {length}: {self.socket_path}. Fix: set it to a shorter "
                "directory"
            )
        existing = self.deployment.state_dir
        while not existing.exists():
            existing = existing.parent
        if not os.access(existing, os.W_OK | os.X_OK):
            raise Refusal(
                f"{config.PREFIX}DATA_DIR: expected a directory that can be written, found "
                f"{existing} without permission. Fix: set it to a directory of your own"
            )
        probe = existing / f".ws-{os.getpid()}"
        try:
            with socket.socket(socket.AF_UNIX) as tried:  # not on a Windows drive, nor on vfat
                tried.bind(str(probe))
        except OSError as error:
            raise Refusal(
                f"{config.PREFIX}DATA_DIR",
                expected="a file system that can hold supervisor's socket",
                found=f"{existing}: {error.strerror}",
                fix="set it to a directory on a disk of this machine, such as ext4 or XFS",
            ) from None
        finally:
            probe.unlink(missing_ok=True)

    def check_program(self, index: int, machine: str) -> None:
        """It exists, runs, and is the configured release; the client is not newer."""
        server = binary.command(self.deployment)
        release = binary.release_of(server, self.deployment.engine)
        binary.check_release(release, self.cluster)

    def offer(self) -> str:
        """By the program of this machine."""
        return binary.offer(binary.command(self.deployment), self.deployment)

    def states(self) -> dict[int, ReplicaProcess] | None:
        """Asked of supervisor; None when none answers."""
        return asked(
            self.socket_path,
            "getAllProcessInfo",
            lambda info: {
                int(program["name"].removeprefix("replica-")): ReplicaProcess(
                    program["statename"], program["pid"]
                )
                for program in info
            },
        )

    def check_up(self) -> None:
        """Those that outlived their supervisor run, too."""
        if not self.orphans():
            super().check_up()

    def orphans(self) -> dict[int, int]:
        """Replica index → pid of replicas that outlived their supervisor. Empty while it lives."""
        if self.states() is not None:
            return {}
        pids = {r.index: self._orphan(r.index) for r in self.cluster.replicas}
        return {index: pid for index, pid in pids.items() if pid}

    def log_path(self, index: int) -> Path:
        """The replica's log file, which supervisor writes."""
        return self.directory(index) / "replica.log"

    def log_source(self, index: int) -> str:
        """The log file."""
        return str(self.log_path(index))

    def log_after(self, index: int, mark: str) -> tuple[Sequence[str], str]:
        """Also where supervisor has rotated the log meanwhile."""
        path = self.log_path(index)
        parts = (*sorted(path.parent.glob(path.name + ".*"), reverse=True), path)
        return lines_after([part for part in parts if part.is_file()], mark)

    def log_tail(self, index: int, lines: int = 15) -> list[str]:
        """The last of them."""
        return [*self.log_lines(index)][-lines:]

    def follow(self, indexes: Sequence[int], lines: int) -> int:
        """By ``tail -F``."""
        paths = [self.log_source(index) for index in indexes]
        command = [_TAIL, f"--lines={lines}", "-F", *paths]
        return subprocess.run(command, timeout=None).returncode  # endless

    def description(self, index: int) -> dict[str, str]:
        """Supervisor's configuration, one for all replicas. Raises Refusal."""
        return {str(self.config_path): self.configuration(binary.command(self.deployment))}

    def configuration(self, server: list[str]) -> str:
        """The file that runs ``server``; '%' is doubled, as supervisor expands it."""

        def program(index: int) -> dict[str, str]:
            directory = self.directory(index)
            start = start_arguments(self.cluster, self.data_file(index))
            run = [str(RUN_REPLICA), str(directory / "replica.pid"), *server, *start]
            return {
                "program": _program(index),
                "command": shlex.join(run).replace("%", "%%"),
                "directory": str(directory).replace("%", "%%"),
                "log": str(self.log_path(index)).replace("%", "%%"),
            }

        values = {
            "label": self.deployment.label,
            "inventory": self.deployment.file,
            "state_dir": str(self.deployment.state_dir).replace("%", "%%"),
            "replicas": [program(replica.index) for replica in self.cluster.replicas],
        }
        return rendered(_TEMPLATE.read_text(), values)

    def todo(self, marks: Mapping[int, str]) -> Todo:
        """A supervisor that is started starts all, and knows with what it has started each."""
        states = self.states()
        if states is None:
            return Todo(stopped=[self.cluster.replicas[0].index])
        running = {index for index, process in states.items() if process.pid}
        stopped = {replica.index for replica in self.cluster.replicas} - running
        wanted = self.description(0)[str(self.config_path)]
        changed = differing(self.config_path, self.socket_path, wanted)
        if changed is None:
            return Todo(stopped, running)
        return Todo(stopped, {index for index in running if _program(index) in changed})

    def stop(self, index: int) -> str:
        """Without a supervisor nothing runs; supervisorctl would call that a failure."""
        return f"test ! -S {self._socket} || {self._supervisorctl('stop', _program(index))}"

    def start(self, index: int) -> str:
        """A supervisor that is started starts them all."""
        # Without the token: a replica has no use for it, and /proc shows every environment.
        supervisord = f"env --unset={config.PREFIX}AUTH_TOKEN {self._tool('supervisord')}"
        running = self._supervisorctl("start", _program(index))
        return f"{self.release(index)}; if {self._is_up}; then {running}; else {supervisord}; fi"

    def renew(self, index: int) -> str:
        """``update`` stops, forgets and starts what has changed; it leaves alone what has not."""
        update = self._supervisorctl("update", _program(index))
        runs = f"{self._supervisorctl('status', _program(index))} | grep -qE 'STARTING|RUNNING'"
        return f"{{ {self._is_up} && {update} && {runs}; }} || {self.start(index)}"

    def stop_all(self, running: Collection[int]) -> list[str]:
        """Replicas, their supervisor, and replicas that a dead supervisor has left behind."""
        pid_file = self.deployment.state_dir / "supervisord.pid"
        gone = (
            f"for _ in $(seq {_STOP_TRIES}); do test -e {shlex.quote(str(pid_file))} || exit 0; "
            f"sleep {_STOP_DELAY_S}; done; exit 1"
        )
        wait = f"sh -c {shlex.quote(gone)}"
        if self.states() is not None:
            return [self._supervisorctl("stop", "all"), self._supervisorctl("shutdown"), wait]
        # One that lives without its socket would start what is killed below it.
        mute = serving(pid_file, str(self.config_path))
        return [f"kill {mute}", wait] if mute else [f"kill {p}" for p in self.orphans().values()]

    def prepare(self, index: int) -> str:
        """The replica's own directory, private."""
        return f"umask 077; mkdir -p {shlex.quote(str(self.directory(index)))}"

    def tigerbeetle(self, index: int, *arguments: str, network: bool = False) -> str:
        """The program of this machine."""
        return shlex.join([*binary.command(self.deployment), *arguments])

    def sh(self, index: int, script: str) -> str:
        """By this machine's shell."""
        return shlex.join(["sh", "-c", script])

    @property
    def _socket(self) -> str:
        return shlex.quote(str(self.socket_path))

    @property
    def _is_up(self) -> str:
        """Succeeds when the supervisor answers: a dead one leaves its socket behind."""
        return f"{self._supervisorctl('pid')} >/dev/null 2>&1"

    def _supervisorctl(self, *action: str) -> str:
        return self._tool("supervisorctl", *action)

    def _tool(self, program: str, *arguments: str) -> str:
        """A program of this environment."""
        path = Path(sys.executable).parent / program
        return shlex.join([str(path), "-c", str(self.config_path), *arguments])

    def _orphan(self, index: int) -> int:
        return serving(self.directory(index) / "replica.pid", self.data_file(index))


def serving(pid_file: Path, file: str) -> int:
    """The pid in a pid file, where that was started with the file: pids are used again. Else 0."""
    import psutil  # here: who only asks for states has no time for it

    try:
        pid = int(pid_file.read_text())
        return pid if file in psutil.Process(pid).cmdline() else 0
    except (OSError, ValueError, psutil.Error):
        return 0


def _program(index: int) -> str:
    """Replica ``index`` in supervisor's words."""
    return f"replica-{index}"


def asked(socket: Path, method: str, read: Callable[[Any], Read]) -> Read | None:
    """What is read in a supervisor's answer; None when it gives none, or there is none.

    Raises Refusal where another program answers.
    """
    if not socket.exists():
        return None
    transport = SupervisorTransport(serverurl=f"unix://{socket}")
    try:
        said = getattr(xmlrpc.client.ServerProxy("http://x", transport).supervisor, method)()
    except (OSError, HTTPException, ExpatError, xmlrpc.client.Error):
        return None
    fix = f"stop what listens there, or set {Process.DISK_SETTING} to another directory"
    with understood(socket, expected="this deployment's supervisor", fix=fix):
        return read(said)


def differing(configuration: Path, socket: Path, wanted: str) -> set[str] | None:
    """The programs that a supervisor does not run as ``wanted``; None where it may be all.

    Its file only says what was wanted: whoever wrote it may have been stopped half-way. It reads
    the file again, and compares: what runs goes on as it was started.
    """
    if not configuration.is_file() or configuration.read_text() != wanted:
        return None
    return asked(socket, "reloadConfig", _named)


def _named(compared: Any) -> set[str]:
    ((added, changed, removed),) = compared
    return {*added, *changed, *removed}


def lines_after(parts: Sequence[Path], mark: str) -> tuple[list[str], str]:
    """What the parts of a log, oldest first, say behind ``mark`` (inode:offset), and a new one.

    A last line that is not whole is given, and again with the next ones.
    """
    inode, offset = map(int, (mark or "0:0").split(":"))
    unread = [(part, 0) for part in parts]
    for number, part in enumerate(parts):
        found = part.stat()
        if found.st_ino == inode and found.st_size >= offset:
            unread = [(part, offset), *unread[number + 1 :]]
    lines: list[str] = []
    for part, begin in unread:
        with part.open("rb") as file:
            file.seek(begin)
            text = file.read()
            whole = begin + text.rfind(b"\n") + 1
            mark = f"{os.fstat(file.fileno()).st_ino}:{whole}"
        lines += text.decode(errors="replace").splitlines()
    return lines, mark
