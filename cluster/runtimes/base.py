"""What every runtime answers, and what is the same for all of them.

A runtime keeps the data files in a place of its own, and starts and stops replicas with its own
tool. What is done with them (deploy, restart in turn, back up, recover) is the same everywhere, and
goes through the shell lines (POSIX sh) that a runtime gives for one replica, locally or over SSH.
None of them asks anything. On this machine none needs root; on a server all run as root.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cluster.refusal import Refusal, last_line
from cluster.tigerbeetle import data_file
from cluster.tigerbeetle.data_file import Past, Plan

if TYPE_CHECKING:
    from cluster.config import Cluster
    from cluster.config.deployment import Deployment


@dataclass(frozen=True)
class ReplicaProcess:
    """A replica's state (RUNNING, STARTING, BACKOFF, FATAL, EXITED, ...) and its pid or 0."""

    state: str
    pid: int

    @property
    def is_running(self) -> bool:
        """Started, and not restarting."""
        return self.state == "RUNNING"

    @property
    def is_known(self) -> bool:
        """Its server has told. Otherwise it may be well, and waiting on is of use."""
        return self.state not in ("UNREACHABLE", "REFUSED BY SSH")


@dataclass(frozen=True)
class Diagnosis:
    """A trouble that was recognised. ``key`` is its stable name."""

    key: str
    evidence: str
    cause: str
    fix: str

    def __str__(self) -> str:
        return f"{self.cause}. Fix: {self.fix} (seen: {self.evidence})"


def with_last_line(state: str, said: str) -> str:
    """How a replica ended, and the last that its log says, which mostly tells why."""
    return f"{state}; its last line: {last_line(said)}" if said.strip() else state


@dataclass(frozen=True)
class Todo:
    """Replicas that do not run, and ones that run, but not as they are configured now."""

    stopped: Collection[int]
    stale: Collection[int] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.stopped or self.stale)


def identity_arguments(cluster: Cluster, index: int) -> list[str]:
    """What `format` and `recover` are told of the replica whose data file they make."""
    count = len(cluster.replicas)
    return [f"--cluster={cluster.id}", f"--replica={index}", f"--replica-count={count}"]


def format_arguments(cluster: Cluster, index: int, path: str) -> list[str]:
    """What the server is called with to make replica ``index``'s data file."""
    return ["format", *identity_arguments(cluster, index), path]


def start_arguments(cluster: Cluster, path: str) -> list[str]:
    """What the server is called with to serve ``path``."""
    options = [f"--addresses={cluster.addresses}", f"--cache-grid={cluster.cache_grid}"]
    if cluster.statsd:
        options += ["--experimental", f"--statsd={cluster.statsd}"]
    return ["start", *options, path]


def rendered(template: str, values: Mapping[str, Any], *, trim_blocks: bool = False) -> str:
    """A file that a runtime's tool reads."""
    import jinja2  # here: who only asks for states has no time for it

    environment = jinja2.Environment(  # noqa: S701 - no HTML
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=trim_blocks
    )
    return environment.from_string(template).render(values)


Where = Literal["processes", "containers", "servers"]


class Runtime(ABC):
    """How one deployment's replicas are run."""

    #: What there is to be looked at, and watched: on this machine, or servers of their own.
    WHERE: ClassVar[Where]
    #: States that end only when somebody does something: waiting on is no use.
    GIVEN_UP: ClassVar[frozenset[str]]
    #: Of the files in ``description``.
    DESCRIPTION_MODE: ClassVar[str] = "644"
    #: Data files are where only the runtime itself can look, and are formatted all together.
    HIDES_FILES: ClassVar[bool] = False
    #: Addresses of its own, where loopback is each replica's own.
    HAS_OWN_NETWORK: ClassVar[bool] = False
    NEEDS_DOCKER: ClassVar[bool] = False
    #: How a replica that was started once is known, where states say so.
    KEPT: ClassVar[str] = ""
    #: For the emulator, which is a Python program.
    NEEDS_PYTHON: ClassVar[bool] = False
    #: Directories below which a replica would not see its own.
    HIDDEN: ClassVar[tuple[str, ...]] = ()
    #: Its directory is mounted into a root of its own: it need not enter those above.
    HAS_OWN_ROOT: ClassVar[bool] = False
    #: What says on which disk the data files are.
    DISK_SETTING: ClassVar[str]

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster

    # --- How they are ---------------------------------------------------------------------------

    @abstractmethod
    def states(self) -> dict[int, ReplicaProcess] | None:
        """Replica index → process; None when nothing of the deployment runs."""

    def check_readable(self) -> None:  # noqa: B027 - most have nothing to say
        """Raises where the states cannot be known at all, so that nobody takes it for "down"."""

    def check_up(self) -> None:
        """Raises Refusal where no replica runs: on one machine another deployment may have its
        addresses.
        """
        if not any(process.pid for process in (self.states() or {}).values()):
            raise Refusal(
                self.deployment.whose,
                expected="a replica of it that runs",
                found="none: what answers at its addresses is another cluster's",
                fix=self.up,
            )

    @abstractmethod
    def log_source(self, index: int) -> str:
        """Where a person reads the replica's log."""

    def log_lines(self, index: int) -> Sequence[str]:
        """The whole log that is kept, oldest line first; empty when there is none."""
        return self.log_after(index, "")[0]

    @abstractmethod
    def log_after(self, index: int, mark: str) -> tuple[Sequence[str], str]:
        """The lines behind ``mark``, and a new mark. All that is kept, where it is not known."""

    @abstractmethod
    def log_tail(self, index: int, lines: int = 15) -> list[str]:
        """The last lines of it. Raises Refusal where its server cannot be asked."""

    @abstractmethod
    def follow(self, indexes: Sequence[int], lines: int) -> int:
        """Print the last lines of these replicas and go on until interrupted; the exit code."""

    def diagnose(self, index: int, process: ReplicaProcess | None, said: str) -> list[Diagnosis]:
        """What is wrong with one replica; ``said`` is the end of its log."""
        if process is not None and process.is_running:
            return []
        seen = with_last_line(process.state if process else "none", said)
        return [Diagnosis("stopped", seen, "the replica does not run", self.up)]

    @property
    def up(self) -> str:
        """The command that starts the replicas, as a person types it."""
        return f"make up {self.deployment.named}"

    @property
    def new(self) -> str:
        """The one that makes the data files of a new cluster."""
        return self.up

    def explain(self, said: str) -> str:
        """Cause and fix of a trouble of this runtime, known by what a log says; else nothing."""
        return ""

    # --- Where things are -----------------------------------------------------------------------

    @abstractmethod
    def data_file(self, index: int) -> str:
        """The data file's path, as the programs in ``tigerbeetle`` and ``sh`` see it."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the data files belong, in words: those of another place are another cluster's."""

    def data_file_name(self, index: int) -> str:
        """The last part of that path."""
        return data_file.file_name(self.cluster.id, index)

    def backup_directory(self, wanted: Path) -> Path:
        """Where a host packs its data files into, and unpacks them from: ``wanted`` if it can."""
        return wanted

    @abstractmethod
    def bootstrap_marker(self, index: int) -> str:
        """Exists from before the first format until all are done: an interrupted one can go on."""

    def check_place(self) -> None:  # noqa: B027 - most have nothing to say
        """Raises where the replicas' things cannot be put."""

    def check_program(self, index: int, machine: str) -> None:  # noqa: B027 - most have nothing to say
        """Raises where there is no server program of the release, for this kind of processor."""

    @abstractmethod
    def offer(self) -> str:
        """What the server program of the deployment's release says of itself, all of it.

        Raises Refusal where there is none, or another one.
        """

    # --- Shell lines for one replica ------------------------------------------------------------

    @abstractmethod
    def stop(self, index: int) -> str:
        """Stop the replica, return when its process has ended; success when none runs."""

    @abstractmethod
    def start(self, index: int) -> str:
        """Start the replica; it listens only later: ``health.wait`` waits for that."""

    @abstractmethod
    def renew(self, index: int) -> str:
        """Let it run as it is described now, whether it ran before or not."""

    def restart(self, index: int) -> str:
        """Stop it and start it, as it is described now."""
        return f"{self.stop(index)} && {self.renew(index)}"

    @abstractmethod
    def prepare(self, index: int) -> str:
        """Make the place where the data file belongs; nothing to do when it is there."""

    @abstractmethod
    def tigerbeetle(self, index: int, *arguments: str, network: bool = False) -> str:
        """Run the server's program on files beside the data file; ``network`` to reach its peers.

        Raises Refusal where there is none.
        """

    @abstractmethod
    def sh(self, index: int, script: str) -> str:
        """Run ``script`` where the data file is, as its owner; stdin and stdout go through."""

    def beside(self, index: int, script: str) -> str:
        """The same where the replica's process can be seen and signalled, while it runs."""
        return self.sh(index, script)

    def unlocked(self, index: int, script: str) -> str:
        """``script`` while it holds the data file's lock, which a server holds as long as it runs.

        So it fails at once when the replica runs, and no replica can start before it ends. What is
        copied this way is consistent, whoever else believes to be in charge.
        """
        path = shlex.quote(self.data_file(index))
        return self.sh(
            index,
            f"test -f {path} || {{ echo {path}: no such data file >&2; exit 1; }}\n"
            f"flock -n {path} true || {{ echo {path}: its replica runs >&2; exit 1; }}\n"
            f"exec flock -n {path} sh -c {shlex.quote(script)}",
        )

    def release(self, index: int) -> str:
        """End what still reads the data file for a backup that was killed: it holds the lock."""
        path = shlex.quote(self.data_file(index))
        return self.sh(
            index,
            f"for fd in /proc/[0-9]*/fd/*; do\n"
            f'if [ "$fd" -ef {path} ]; then\n'
            "pid=${fd#/proc/} pid=${pid%%/*}\n"
            "case $(cat /proc/$pid/comm) in flock|cat|sh) kill -9 $pid;; esac\n"
            "fi; done 2>/dev/null",
        )

    def inspect(self, index: int, path: str = "") -> str:
        """Print the superblock of its data file, or of a copy beside it."""
        return self.tigerbeetle(index, "inspect", "superblock", path or self.data_file(index))

    def format(self, index: int) -> list[str]:
        """Make its data file, to ``.partial``, then renamed, as the file's owner."""
        partial = f"{self.data_file(index)}.partial"
        path = shlex.quote(self.data_file(index))
        return [
            self.sh(index, f"rm -f {path}.partial"),  # left by a format that was interrupted
            self.tigerbeetle(index, *format_arguments(self.cluster, index, partial)),
            self.sh(index, f"test ! -e {path} && mv -T {path}.partial {path} && sync {path}"),
        ]

    # --- All together ---------------------------------------------------------------------------

    def plan(self, past: Past, *, is_asked_for: bool) -> Plan | None:
        """What the data files allow, where they are hidden; None where that is only known later."""
        raise NotImplementedError

    def files(self) -> Mapping[int, Sequence[str]]:
        """The names in each replica's place, where they are hidden."""
        raise NotImplementedError

    def format_all(self) -> None:
        """Format a new cluster's files, or finish an interrupted format, where they are hidden."""
        raise NotImplementedError

    def description(self, index: int) -> dict[str, str]:
        """Path → content of the files by which its tool runs the replica."""
        return {}

    @abstractmethod
    def todo(self, marks: Mapping[int, str]) -> Todo | None:
        """What a start has to do; None where that is only known later.

        ``marks`` are what servers said of their replicas: index → fingerprint of the settings
        with which each runs, for those that run. Empty on this machine, which is asked.
        """

    def stop_all(self, running: Collection[int]) -> list[str]:
        """Lines that stop these for good, as the tool would start some of them again by itself."""
        return [self.stop(index) for index in sorted(running)]

    def check_whole(self) -> None:
        """Raises Refusal where a replica was never started: there is nothing to restart."""
        wanted = len(self.cluster.replicas)
        if self.KEPT and (found := len(self.states() or {})) < wanted:
            raise Refusal(
                f"restart: expected every replica {self.KEPT}, found {found} of {wanted}. "
                f"Fix: {self.up}"
            )
