"""What every task needs to know of the machines, and a way to act on one of them."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Collection, Mapping

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra import host, inventory
from pyinfra.api import FactBase
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host
from pyinfra.facts.server import Command

from cluster import interruption
from cluster.checks import facts, observe
from cluster.checks.facts import Facts
from cluster.config.deployment import Deployment
from cluster.runtimes import layout, of
from tasks.support.act import run_now
from tasks.support.here import guarded, is_server

_observed: dict[int, Facts] = {}
_observing = BoundedSemaphore()


class ServerFacts(FactBase[Facts]):
    """``files/tigerbeetle/observe.sh`` on the host, read."""

    def command(self, line: str, directory: str) -> str:
        """What pyinfra runs on the host."""
        self.directory = directory
        return line

    def process(self, output: list[str]) -> Facts:
        """What the host printed, read."""
        return facts.parse(output, time.time(), self.directory)


def replica_index() -> int:
    """The replica that the current task's host holds."""
    return int(host.data.replica)


def host_of(index: int) -> Host:
    """The pyinfra host of replica ``index``."""
    return next(h for h in inventory if h.data.get("replica") in (index, None))


def is_first_host() -> bool:
    """True on one host of all: for what concerns the whole cluster, and is said once."""
    return host.data.get("replica") in (0, None)


def observed(deployment: Deployment, away: Collection[int] = ()) -> Mapping[int, Facts]:
    """Replica index → its machine as it was before any change; asked once, of all together.

    Raises DeployError when one is left out (``--limit``), but for those that are known to be
    ``away``: a cluster is judged whole.
    """
    with _observing:  # every host's tasks come here at the same time
        if not _observed:
            with guarded():
                is_here = of(deployment).WHERE != "servers"
                _observed.update(
                    observe.observe(deployment) if is_here else _of_servers(deployment, away)
                )
    return _observed


def marks(deployment: Deployment, away: Collection[int] = ()) -> Mapping[int, str]:
    """Of the replicas that run on servers: index → the settings with which it runs."""
    seen = observed(deployment, away).items()
    return {i: found.settings for i, found in seen if found.running.get(deployment.runtime)}


def is_outdated(*units: str) -> bool:
    """systemd has not read the files of one of them, as they were before any change.

    Whoever wrote them may have been stopped before it was told.
    """
    asked = f"systemctl show --value --property=NeedDaemonReload {shlex.join(units)}"
    return "yes" in str(host.get_fact(Command, asked))


def act(index: int, command: str) -> None:
    """Run a shell line for replica ``index`` now, to its end: it may be a stop and a start.

    Raises DeployError with what it said.
    """
    if not is_server() and shutil.which("setsid"):
        command = f"exec setsid sh -c {shlex.quote(command)}"  # out of a terminal's Ctrl-C
    with interruption.whole(f"starting replica {index}"):
        done, output = run_now(command, host_of(index), print_output=True)
    if not done:
        raise DeployError(f"replica {index}: `{command}` failed: {output.output}")


def _of_servers(deployment: Deployment, away: Collection[int]) -> Mapping[int, Facts]:
    indexes = [s.replica for s in deployment.servers if s.replica not in away]
    if absent := [h.name for h in map(host_of, indexes) if not h.connected]:
        raise DeployError(
            f"{deployment.name}: expected to reach every server, found {', '.join(absent)} left "
            "out. Fix: repeat without --limit, when all can be reached"
        )
    asking = [gevent.spawn(_of_server, deployment, index) for index in indexes]
    gevent.joinall(asking, raise_error=True)
    return dict(zip(indexes, (g.get() for g in asking), strict=True))


def _of_server(deployment: Deployment, index: int) -> Facts:
    member = host_of(index)
    with ctx_host.use(member):
        seen: Facts | None = member.get_fact(
            ServerFacts,
            line=observe.command(deployment, index),
            directory=layout.data_dir(deployment),
        )
    if seen is None:
        raise DeployError(
            f"replica {index}'s server: expected it to describe itself, found nothing. "
            "Fix: see what it said above; root, or sudo without a password, is needed"
        )
    return seen
