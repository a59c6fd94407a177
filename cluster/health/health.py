"""Health in three levels, per replica and for the cluster.

1. the port answers; 2. the replica answers a ping of the protocol, and its log says normal status,
and who is primary; 3. a canary commits. A port alone says little: a wedged replica keeps it open.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from cluster.config import Replica
from cluster.config.deployment import Deployment
from cluster.refusal import Failed
from cluster.runtimes import of, ssh, tunnel
from cluster.runtimes.base import ReplicaProcess
from cluster.runtimes.servers import REFUSED_BY_SSH
from cluster.tigerbeetle import canary, log, ping, waiting
from cluster.tigerbeetle.canary import Canary
from cluster.tigerbeetle.ping import Pong

#: A genuine replica faults in 2.6 GiB before it listens: 1 to 23 s were measured.
START_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 15.0
#: Normal replicas may be about to start again together, as a new release: 12 s were measured.
PROBES = 3
_CONNECT_TIMEOUT_S = 1.0
_KEPT_S = 0.1
#: A backup that hears nothing says so again and again, ever less often: up to 5.6 s apart were
#: measured within the first minute (0.17.9).
HEARTBEAT_LOST_S = 12.0


#: A replica that has missed its primary counts as deaf for that long, and at a load of 12 on two
#: cores they had not found one another after 20 s.
SETTLE_TIMEOUT_S = 60.0

_REFUSED = "refused by SSH"


class Unhealthy(Failed):
    """The cluster does not commit; ``str()`` says what was last seen, log lines included."""


@dataclass(frozen=True)
class ReplicaHealth:
    """Levels 1 and 2 of one replica, and its process."""

    replica: Replica
    process: str  # RUNNING, BACKOFF, FATAL, EXITED, ...; DOWN when there is none
    pid: int
    port_open: bool
    log: log.ReplicaLog
    pong: Pong | None
    newest_view: int = 0  # of all pongs
    seen_at: float = 0.0  # seconds since 1970

    @property
    def wedged_because(self) -> str:
        """Why it does not work though its port is open; '' when it works, or when it is closed.

        A port check calls such a replica healthy. A backup that is cut off stays in normal status
        and answers pings; only its log says that it does not hear its primary.
        """
        if self.process != "RUNNING" or not self.port_open:
            return ""
        if self.pong is None:
            return "silent"
        if self.pong.view < self.newest_view:
            return "old view"
        lost_at = self.log.heartbeat_lost_at
        is_deaf = lost_at is not None and self.seen_at - lost_at < HEARTBEAT_LOST_S
        return "hears no primary" if is_deaf else ""

    @property
    def is_known(self) -> bool:
        """Its server has told what runs there."""
        return ReplicaProcess(self.process, self.pid).is_known

    @property
    def is_normal(self) -> bool:
        """Running, answering, and in normal status: it takes part in commits."""
        is_up = self.process == "RUNNING" and self.port_open and not self.wedged_because
        return is_up and self.log.status == "normal"

    def __str__(self) -> str:
        said = self.log.role
        if self.process == REFUSED_BY_SSH.state:
            said = _REFUSED
        elif self.process != "RUNNING":
            said = self.process.lower()
        elif not self.port_open:
            said = "starting"
        elif self.wedged_because:
            said = "wedged"
        return f"replica {self.replica.index} {said}"


def remedy(seen: str, otherwise: str) -> str:
    """What to do about replicas that are not normal, told of by ``str``. Pure.

    One whose server lets nobody in may be well: nothing is to be repaired there.
    """
    return ssh.PATIENCE if _REFUSED in seen else otherwise


class Logs:
    """What the replicas' logs say, for who looks again and again: each line is read once."""

    def __init__(self, deployment: Deployment) -> None:
        self._runtime = of(deployment)
        self._readers = {r.index: log.Reader() for r in deployment.cluster.replicas}
        self._marks = dict.fromkeys(self._readers, "")

    def of(self, index: int) -> log.ReplicaLog:
        """Of one replica, by now."""
        lines, self._marks[index] = self._runtime.log_after(index, self._marks[index])
        return self._readers[index].read(lines)


def of_replicas(deployment: Deployment, logs: Logs | None = None) -> list[ReplicaHealth]:
    """Levels 1 and 2 of each replica, in order; ``logs`` are kept from an earlier look."""
    states, said = of(deployment).states() or {}, logs or Logs(deployment)
    ways = tunnel.reached(deployment).clients  # where they are reached from here

    def look(replica: Replica) -> ReplicaHealth:
        index, way = replica.index, ways[replica.index]
        process = states.get(index, ReplicaProcess("DOWN", 0))
        port_open = port_answers(way)
        pong = ping.ask(way, deployment.cluster.id) if port_open else None
        told = said.of(index)
        return ReplicaHealth(
            replica=replica,
            process=process.state,
            pid=process.pid,
            port_open=port_open,
            log=told if process.is_running else told.after_death(),
            pong=pong,
            seen_at=time.time(),
        )

    replicas = deployment.listed
    with ThreadPoolExecutor(len(replicas)) as together:  # a silent one takes its whole time
        found = list(together.map(look, replicas))
    newest = max((r.pong.view for r in found if r.pong), default=0)
    return [replace(r, newest_view=newest) for r in found]


def settled(
    look: Callable[[], list[ReplicaHealth]], *, beside: int | None = None
) -> list[ReplicaHealth]:
    """What ``look`` shows once all that run are normal, but for ``beside``; else what it saw last.

    A passing state is waited out: a view change after a loss, or after a freeze, or an election in
    which one comes late. Who does not run is not waited for.
    """
    replicas: list[ReplicaHealth] = []

    def observe() -> tuple[bool, str]:
        nonlocal replicas
        replicas = look()
        others = [r for r in replicas if r.replica.index != beside]
        running = [r for r in others if r.process in ("RUNNING", "STARTING")]
        return all(r.is_normal for r in running), ", ".join(map(str, replicas))

    with suppress(waiting.Expired):  # whoever asks refuses, with what was seen last
        what = "the replicas that run to be normal"
        waiting.wait_until(observe, what=what, timeout_s=SETTLE_TIMEOUT_S, interval_s=1)
    return replicas


def port_answers(replica: Replica) -> bool:
    """Level 1: a TCP connection is accepted within a second, and kept.

    Docker's proxy accepts for a container that does not listen, and closes at once.
    """
    try:
        with socket.create_connection((str(replica.ip), replica.port), _CONNECT_TIMEOUT_S) as made:
            made.settimeout(_KEPT_S)
            return made.recv(1) != b""
    except TimeoutError:
        return True  # kept, and nothing to say: the client speaks first
    except OSError:
        return False


def probe(deployment: Deployment, timeout_s: float = PROBE_TIMEOUT_S) -> Canary:
    """Level 3: commit once and read back."""
    reached = tunnel.reached(deployment)
    return canary.probe(reached.client_addresses, deployment.cluster.id, timeout_s)


def wait(
    deployment: Deployment,
    *,
    timeout_s: float = START_TIMEOUT_S,
    on_progress: Callable[[str], None] = lambda seen: None,
) -> list[ReplicaHealth]:
    """Return once every replica is normal and a canary has committed; they, as seen before it.

    Raises Unhealthy.
    """
    logs = Logs(deployment)
    replicas: list[ReplicaHealth] = []

    def observe() -> tuple[bool, str]:
        nonlocal replicas
        replicas = of_replicas(deployment, logs)
        given_up = [r for r in replicas if r.process in of(deployment).GIVEN_UP]
        if given_up:
            raise Unhealthy(_with_log_tails(deployment, str(given_up[0]), given_up))
        return all(r.is_normal for r in replicas), ", ".join(map(str, replicas))

    for _ in range(PROBES):
        with canary.Probe() as client:
            # It connects while the replicas are waited for.
            client.connect(tunnel.reached(deployment).client_addresses, deployment.cluster.id)
            try:
                waiting.wait_until(
                    observe,
                    what="all replicas to be normal",
                    timeout_s=timeout_s,
                    on_progress=on_progress,
                )
            except waiting.Expired as expired:
                replicas = of_replicas(deployment, logs)
                # On a machine that is busy enough, a look takes longer than what it waits for.
                if late := [r for r in replicas if not r.is_normal]:
                    raise Unhealthy(_with_log_tails(deployment, str(expired), late)) from None
            committed = client.result(PROBE_TIMEOUT_S)
        if committed.commits:
            on_progress(
                f"canary committed in {committed.commit_ms:g} ms, read in {committed.read_ms:g} ms"
            )
            return replicas
        on_progress(committed.detail)
    raise Unhealthy(_with_log_tails(deployment, committed.detail, of_replicas(deployment, logs)))


def _with_log_tails(deployment: Deployment, reason: str, replicas: list[ReplicaHealth]) -> str:
    lines = [reason]
    for health in replicas:
        source = of(deployment).log_source(health.replica.index)
        try:
            last = of(deployment).log_tail(health.replica.index)
        except ssh.SshError as away:
            last = [str(away)]
        lines += [f"  last lines of {source}:", *(f"    {line}" for line in last)]
    said = "\n".join(lines)
    known = of(deployment).explain(said)
    return f"{known}\n{said}" if known else said
