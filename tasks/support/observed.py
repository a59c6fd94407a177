"""What every task on servers needs: what all of them are like, and a way to act on one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra import host, inventory
from pyinfra.api import FactBase
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from cluster.checks import observation
from cluster.checks.observation import Observation
from cluster.config import Replica
from cluster.config.inventory import Deployment
from cluster.runtimes import layout, program
from cluster.tigerbeetle.data_file import Identity, Plan, decide, refuse_others

_observed: dict[int, Observation] = {}
_observing = BoundedSemaphore()


class ServerObservation(FactBase[Observation]):
    """``files/tigerbeetle/observe.sh`` on the host, read."""

    def command(self, unit: str, directory: str, port: int, peers: list[str]) -> str:
        """What pyinfra runs on the host."""
        return observation.command(unit, directory, port, peers)

    def process(self, output: list[str]) -> Observation:
        """What the host printed, read."""
        return observation.parse(output, time.time())


def replica_index() -> int:
    """The replica that the current task's host holds."""
    return int(host.data.replica)


def host_of(index: int) -> Host:
    """The pyinfra host of replica ``index``."""
    return next(h for h in inventory if h.data.get("replica") == index)


def is_first_host() -> bool:
    """True on one host of all: for what concerns the whole cluster, and is said once."""
    return replica_index() == 0


def observed(deployment: Deployment) -> Mapping[int, Observation]:
    """Replica index → its server as it was before any change; asked once, of all together.

    Raises DeployError when one is left out (``--limit``): a cluster is judged whole.
    """
    with _observing:  # every host's tasks come here at the same time
        if not _observed:
            _require_all(deployment)
            indexes = [server.replica for server in deployment.servers]
            asking = [gevent.spawn(_observe, deployment, index) for index in indexes]
            gevent.joinall(asking, raise_error=True)
            _observed.update(zip(indexes, (g.get() for g in asking), strict=True))
    return _observed


def plan_of_all(deployment: Deployment, *, is_asked_for: bool) -> Plan:
    """What the data files of all servers allow. Raises Refusal."""
    seen = observed(deployment)
    return decide(
        {index: _identity(deployment, index, found) for index, found in seen.items()},
        deployment.cluster,
        is_bootstrapping=_is_bootstrapping(seen),
        is_asked_for=is_asked_for,
        answering=[r.index for r in deployment.cluster.replicas if _answers(seen, r)],
    )


def run(index: int, command: str) -> str:
    """Run a shell line as root on replica ``index``'s server, now; its output.

    Raises DeployError when it fails.
    """
    member = host_of(index)
    done, output = member.run_shell_command(command, _sudo=bool(member.data.get("_sudo")))
    if not done:
        raise DeployError(f"replica {index}: `{command}` failed: {output.output}")
    return str(output.stdout)


def _require_all(deployment: Deployment) -> None:
    absent = [h.name for h in inventory if not h.connected]
    if absent:
        raise DeployError(
            f"{deployment.name}: expected to reach every server, found {', '.join(absent)} left "
            "out. Fix: repeat without --limit, when all can be reached"
        )


def _observe(deployment: Deployment, index: int) -> Observation:
    member = host_of(index)
    replicas = deployment.cluster.replicas
    with ctx_host.use(member):
        seen: Observation | None = member.get_fact(
            ServerObservation,
            unit=replicas[index].name,
            directory=layout.directory(deployment, index),
            port=replicas[index].port,
            peers=[r.address for r in replicas if r.index != index],
        )
    if seen is None:
        raise DeployError(
            f"replica {index}'s server: expected it to describe itself, found nothing. "
            "Fix: see what it said above; root, or sudo without a password, is needed"
        )
    return seen


def _identity(deployment: Deployment, index: int, seen: Observation) -> Identity | None:
    expected = layout.data_path(deployment, index).rpartition("/")[2]
    refuse_others(index, expected, [found.name for found in seen.data_files])
    if not seen.data_files:
        return None
    server = program.reader(deployment)
    return observation.identify(server, seen.data_files[0], deployment.state_dir)


def _is_bootstrapping(seen: Mapping[int, Observation]) -> bool:
    """An earlier first format was interrupted: whatever has a file has never been started."""
    having = [s for s in seen.values() if s.data_files]
    return bool(having) and all(s.is_bootstrapping for s in having)


def _answers(seen: Mapping[int, Observation], replica: Replica) -> bool:
    is_listening = bool(seen[replica.index].listening & {str(replica.ip), "0.0.0.0", "::"})  # noqa: S104
    return is_listening or any(s.peers.get(replica.address) == "open" for s in seen.values())
