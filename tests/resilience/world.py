"""A deployed cluster to break: what can be done to a replica, and what must hold before and after.

Subclasses know how a runtime's replicas are killed, paused and cut off. Everything else goes
through ``cluster.runtimes``, as the operator's own tasks do.
"""

from __future__ import annotations

import abc
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.operate import rollout
from cluster.runtimes import of
from cluster.runtimes.base import Runtime
from cluster.tigerbeetle import data_file, log, ping
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox
from tests.resilience.recorded import Workload

COMMAND_TIMEOUT_S = 120
CATCH_UP_TIMEOUT_S, CATCH_UP_POLL_S = 180, 3
#: `inspect integrity` takes 1 to 3 s; on damaged blocks it may hang.
INSPECT_TIMEOUT_S = 60
#: Of a whole cluster, in search of one that cuts no write short.
STOPS = 5

#: Where each zone of a data file begins, and how much of it a fault destroys, bytes. The layout is
#: `tigerbeetle inspect constants` of 0.17.
ZONES = {
    "superblock copy": (0, 24 << 10),
    "wal headers": (96 << 10, 256 << 10),
    "wal prepares": (352 << 10, 4 << 20),
    "client replies": ((352 << 10) + (1 << 30), 4 << 20),
    "grid": ((512 << 10) + (1 << 30) + (64 << 20), 4 << 20),
}

#: Damage here is found, and repaired from the peers, only when something reads it: a client that
#: asks for its reply again, a query, the scrubber in its days. The option leaves the zone out.
REPAIRED_WHEN_READ = {"client replies": "--skip-client-replies", "grid": "--skip-grid"}


class MajorityError(Exception):
    """A fault would take more replicas than the cluster can spare."""


class World(abc.ABC):
    """One cluster of three genuine replicas. ``runs`` is where histories are kept."""

    def __init__(self, sandbox: Sandbox, deployment: Deployment, runs: Path) -> None:
        self.sandbox, self.deployment, self.runs = sandbox, deployment, runs
        self.replicas = self.deployment.clients
        self._faulty: set[int] = set()
        self._panics: dict[int, int] = {}
        self._latent: dict[int, set[str]] = {}

    # -- the rule --------------------------------------------------------------------------------

    @property
    def spare(self) -> int:
        """How many replicas may be faulty while the cluster still commits."""
        return (len(self.replicas) - 1) // 2

    @contextmanager
    def faulty(self, victims: Sequence[int], *, unavailability: bool = False) -> Iterator[None]:
        """Claim replicas to break. Raises MajorityError for more than a minority, unless said."""
        wanted = self._faulty | set(victims)
        if len(wanted) > self.spare and not unavailability:
            raise MajorityError(
                f"replicas {sorted(wanted)}: expected at most {self.spare} of {len(self.replicas)} "
                "to be faulty at once, found more. Fix: only a test of unavailability may do that"
            )
        before, self._faulty = self._faulty, wanted
        try:
            yield
        finally:
            self._faulty = before

    # -- the gate --------------------------------------------------------------------------------

    def gate(self, *, may_restart: Sequence[int] = (), may_panic: Sequence[int] = ()) -> None:
        """All normal, a canary commits, all keep up, nobody panicked or restarted but who may."""
        # A container that is about to be restarted looks like one that was given up.
        wait_until(self._all_run, what="every server to run", timeout_s=COMMAND_TIMEOUT_S)
        wait_until(
            self._all_keep_up,
            what="all to keep up",
            timeout_s=CATCH_UP_TIMEOUT_S,
            interval_s=CATCH_UP_POLL_S,
        )
        for replica in self.replicas:
            panics = self._panics_of(replica.index)
            known = self._panics.get(replica.index, 0)
            assert replica.index in may_panic or len(panics) == known, panics[known:]
            self._panics[replica.index] = len(panics)
        lives = self.lives()
        before, self._lives = getattr(self, "_lives", lives), lives
        for index, life in lives.items():
            assert index in may_restart or life == before[index], (
                f"replica {index} restarted\n" + "\n".join(self._said(index))
            )

    def _all_keep_up(self) -> tuple[bool, str]:
        """Else the next fault would take one more than it says: who catches up is no majority."""
        before = self._members()
        health.wait(self.deployment)
        behind = rollout.late(before, self._members())
        return not behind, f"catching up: {[member.said for member in behind]}"

    def _members(self) -> list[rollout.Member]:
        return [rollout.Member.of(seen) for seen in health.of_replicas(self.deployment)]

    def _all_run(self) -> tuple[bool, str]:
        lives = self.lives()
        return all(lives.values()), f"pids {lives}"

    def _panics_of(self, index: int) -> tuple[str, ...]:
        lines = of(self.deployment).log_lines(index)
        return log.parse(lines).panics

    def _said(self, index: int) -> list[str]:
        return list(of(self.deployment).log_tail(index, 60))

    def keep_logs(self) -> None:
        """Copy what the replicas have said beside the histories."""
        for replica in self.replicas:
            lines = of(self.deployment).log_lines(replica.index)
            path = self.runs / f"{self.deployment.name}-replica-{replica.index}.log"
            path.write_text("".join(f"{line.rstrip()}\n" for line in lines))

    def lives(self) -> dict[int, int]:
        """Replica index → pid of its server: another one means that it was restarted."""
        return {replica.index: self.pid(replica.index) for replica in self.replicas}

    def primary(self) -> int:
        """The primary: the newest view's, modulo the number of replicas."""
        pongs = [ping.ask(replica, self.deployment.cluster.id) for replica in self.replicas]
        return max(pong.view for pong in pongs if pong) % len(self.replicas)

    def backup(self) -> int:
        """A replica that is not the primary."""
        return (self.primary() + 1) % len(self.replicas)

    # -- what every runtime can do ----------------------------------------------------------------

    def sh(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a shell command in the sandbox's environment; its output. It must succeed."""
        done = subprocess.run(
            ["sh", "-c", command],
            env=self.sandbox.environ,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
        return done.stdout

    @property
    def runtime(self) -> Runtime:
        """What runs the replicas."""
        return of(self.deployment)

    def stop(self, *indexes: int) -> None:
        """Stop replicas, in turn, and wait until their processes have ended."""
        for index in indexes:
            self.sh(self.runtime.stop(index))

    def start(self, *indexes: int) -> None:
        """Start replicas; the gate waits until they serve."""
        for index in indexes:
            self.sh(self.runtime.start(index))

    def lose(self, index: int) -> None:
        """Remove the data file of a stopped replica."""
        self._latent.pop(index, None)
        self.sh(self.runtime.sh(index, f"rm {shlex.quote(self.runtime.data_file(index))}"))

    def recover(self, index: int) -> None:
        """Make a new data file for a replica that has lost its own, from the others."""
        cluster = self.deployment.cluster
        command = self.runtime.tigerbeetle(
            index,
            "recover",
            f"--cluster={cluster.id}",
            f"--addresses={self.own_addresses}",
            f"--replica={index}",
            f"--replica-count={len(self.replicas)}",
            self.runtime.data_file(index),
            network=True,
        )
        self.sh(command)

    def damage(self, index: int, zone: str) -> None:
        """Overwrite a part of a zone of a stopped replica's data file with random bytes."""
        offset, size = ZONES[zone]
        path = shlex.quote(self.runtime.data_file(index))
        block = 8 << 10
        self.sh(
            self.runtime.sh(
                index,
                f"left=$(( ($(stat -c %s {path}) - {offset}) / {block} ))\n"
                f"count={size // block}\n[ $count -le $left ] || count=$left\n[ $count -gt 0 ]\n"
                f"dd if=/dev/urandom of={path} bs={block} seek={offset // block} count=$count "
                "conv=notrunc 2>/dev/null",
            )
        )
        if zone in REPAIRED_WHEN_READ:
            self._latent.setdefault(index, set()).add(REPAIRED_WHEN_READ[zone])

    def stop_whole(self) -> None:
        """Stop all, until none was cut short in writing its superblock: a start repairs that.

        `inspect integrity` would, too, in a file that it has opened for reading: it panics.
        """
        indexes = [replica.index for replica in self.replicas]
        for _ in range(STOPS):
            self.stop(*indexes)
            torn = [index for index in indexes if self._superblock(index).is_torn]
            if not torn:
                return
            self.start(*indexes)
            self.gate(may_restart=indexes)
        raise AssertionError(f"replicas {torn}: torn superblocks after each of {STOPS} stops")

    def _superblock(self, index: int) -> data_file.Superblock:
        return data_file.parse_superblock(self.sh(self.runtime.inspect(index), INSPECT_TIMEOUT_S))

    def integrity(self, index: int) -> None:
        """`inspect integrity` of a stopped replica's file finds nothing wrong.

        What was damaged on purpose, and nobody may have read since, is left out.
        """
        own, left_out = self.runtime, sorted(self._latent.get(index, ()))
        what = ("inspect", "integrity", *left_out, own.data_file(index))
        self.sh(own.tigerbeetle(index, *what), INSPECT_TIMEOUT_S)

    def workload(self, **options: float) -> Workload:
        """Start the recorded workload."""
        return Workload(
            self.client_addresses,
            self.deployment.cluster.id,
            self.runs,
            seed=time.time_ns() % 997,
            **options,
        )

    def resume(self, index: int) -> None:
        """Let a paused replica go on."""
        self.signal(index, signal.SIGCONT)

    def pause(self, index: int) -> None:
        """Stop a replica in its tracks, its connections open."""
        self.signal(index, signal.SIGSTOP)

    def kill(self, *indexes: int) -> None:
        """End servers at once; whatever supervises them starts them again."""
        for index in indexes:
            self.signal(index, signal.SIGKILL)

    # -- what depends on the runtime --------------------------------------------------------------

    @property
    @abc.abstractmethod
    def client_addresses(self) -> str:
        """Where the workload reaches the replicas."""

    @property
    @abc.abstractmethod
    def own_addresses(self) -> str:
        """Where a replica's helper reaches them."""

    @abc.abstractmethod
    def pid(self, index: int) -> int:
        """The server's process id on this machine; 0 when none runs."""

    @abc.abstractmethod
    def signal(self, index: int, number: int) -> None:
        """Send a signal to the server itself."""

    @abc.abstractmethod
    def cut(self, index: int) -> None:
        """Take a replica off the network, in silence."""

    @abc.abstractmethod
    def disturb(self, index: int) -> None:
        """Make a replica's links lossy, and slow where that can be done."""

    @abc.abstractmethod
    def heal(self, index: int) -> None:
        """End what ``cut`` and ``disturb`` did."""
