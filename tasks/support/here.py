"""What every task needs of its host: the deployment it describes, and errors as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pyinfra import host, inventory
from pyinfra.api.exceptions import DeployError

from cluster.checks import existence
from cluster.config.deployment import Deployment
from cluster.config.inventory import HOST_DATA, of_hosts, read
from cluster.refusal import Refusal, refusal_of


def deployment_here() -> Deployment:
    """The deployment that the current task's host is part of, or monitors."""
    if monitored := host.data.get("monitors"):
        with guarded():
            return _read(monitored)
    members = list(inventory) if is_server() else [host]
    with guarded():
        return of_hosts([{key: h.data.get(key) for key in HOST_DATA} for h in members])


def indexes_here() -> list[int]:
    """The replicas that the current task's host holds: all of them, or a server's one."""
    if is_server():
        return [int(host.data.replica)]
    return [replica.index for replica in deployment_here().cluster.replicas]


_read = cache(read)


@contextmanager
def guarded() -> Iterator[None]:
    """Let the project's errors stop this host's deploy with their own words."""
    try:
        yield
    except (Refusal, OSError) as error:
        raise DeployError(str(refusal_of(error))) from None


def is_yes(key: str) -> bool:
    """A piece of host data that the command line may set: ``--data KEY=yes``."""
    return str(host.data.get(key, "")).lower() in ("yes", "true", "1")


def away_here() -> set[int]:
    """The replicas whose servers the command line leaves out, since they are away."""
    return {int(index) for index in str(host.data.get("away") or "").split(",") if index}


def is_server() -> bool:
    """The current task's host is one of several, with one replica each."""
    return host.data.get("replica") is not None


def is_bootstrap() -> bool:
    """A new cluster is meant, whatever was before: only where the command line says so."""
    return is_yes("bootstrap") or existence.is_new_meant()
