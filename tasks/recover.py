"""Recovering one replica's data file from the others, on the host that has lost it.

The phases of `make recover`, which has seen to it that the others are well
(`cluster.operate.recover`).
``recover_replica`` in the host data is the replica's index.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.api.exceptions import DeployError

from cluster.checks import rules
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.refusal import Refusal
from cluster.runtimes import of
from cluster.runtimes.base import identity_arguments
from cluster.tigerbeetle.data_file import parse_superblock
from cluster.tigerbeetle.waiting import wait_until
from tasks import exporter, program
from tasks import host as machine
from tasks import replica as replicas
from tasks.support.act import call, call_once, run_now, shell, tell
from tasks.support.here import deployment_here, guarded, indexes_here, is_server
from tasks.support.observed import observed

#: 1.5 to 1.7 s were measured; without a view change it would wait for ever.
_RECOVER_TIMEOUT_S = 120
#: It copies the whole state: minutes for gigabytes, an hour for what a slow link takes.
_CATCH_UP_TIMEOUT_S = 3600.0
_POLL_S = 0.5
_LOOK_TIMEOUT_S = 60
#: A replica is normal for a moment before it knows that it must copy the state: 13 ms were seen.
_SETTLED_S = 3.0


@deploy("Start the other replicas")
def start_others() -> None:
    """Of a cluster that is down as a whole: they are what the lost file is made from.

    ``lost_replicas`` in the host data are all that have lost theirs.
    """
    deployment = deployment_here()
    lost = set(map(int, str(host.data.lost_replicas).split(",")))
    others = [r.index for r in deployment.cluster.replicas if r.index not in lost]
    for index in {*indexes_here()} & {*others}:
        shell(f"Start replica {index}", of(deployment).start(index))
    what = "Wait until the others are normal"
    call_once(what, _await_others, deployment=deployment, others=others)


@deploy("Check that the data file is lost")
def check() -> None:
    """Refuse where one is there that can be read: its replica repairs itself with it.

    And a server that is not fit for a replica: it may be a new one, in place of one that is gone.
    """
    deployment = deployment_here()
    if is_server():
        with guarded():
            rules.check(deployment, {_index(): observed(deployment)[_index()]})
        exporter.check()
    if _index() in indexes_here():
        call("Look at the data file", _check, deployment=deployment)


@deploy("Recover the data file")
def recover() -> None:
    """Make it from the others as ``.partial``, rename it, start the replica, watch it catch up."""
    deployment, index = deployment_here(), _index()
    if index not in indexes_here():
        host.noop("another host's replica")
        return
    if is_server():
        machine.make_ready()
        program.bring()
        replicas.describe()
    runtime = of(deployment)
    data, partial = runtime.data_file(index), f"{runtime.data_file(index)}.partial"
    aside = f"{data}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with guarded():
        who = [*identity_arguments(deployment.cluster, index), f"--addresses={deployment.peers}"]
        recovering = runtime.tigerbeetle(index, "recover", *who, partial, network=True)
    shell(f"Stop replica {index}, if it keeps starting", runtime.stop(index))
    shell("Make the place of the data file", runtime.prepare(index))
    left = runtime.sh(index, f"rm -f {_q(partial)}")
    shell("Remove what an interrupted recovery has left", left)
    shell("Recover the data file from the others", f"timeout {_RECOVER_TIMEOUT_S} {recovering}")
    shell(
        "Put it in its place; a damaged one is kept",
        runtime.sh(
            index,
            f"set -eu; if test -e {_q(data)}; then mv {_q(data)} {_q(aside)}; fi\n"
            f"mv {_q(partial)} {_q(data)}; sync",
        ),
    )
    shell(f"Start replica {index}", runtime.start(index))
    what = f"Wait until replica {index} has caught up"
    call(what, _catch_up, deployment=deployment, index=index)


def _await_others(deployment: Deployment, others: list[int]) -> None:
    def observe() -> tuple[bool, str]:
        found = [r for r in health.of_replicas(deployment) if r.replica.index in others]
        return all(r.is_normal for r in found), ", ".join(map(str, found))

    with guarded():
        _wait(observe, "the other replicas to be normal", health.START_TIMEOUT_S)


def _wait(observe: Callable[[], tuple[bool, str]], what: str, timeout_s: float) -> None:
    wait_until(observe, what=what, timeout_s=timeout_s, interval_s=_POLL_S, on_progress=tell)


def _check(deployment: Deployment) -> None:
    runtime, index = of(deployment), _index()
    data = runtime.data_file(index)
    if not run_now(runtime.sh(index, f"test -e {_q(data)}"), _timeout=_LOOK_TIMEOUT_S)[0]:
        return
    try:
        _, said = run_now(runtime.inspect(index), _timeout=_LOOK_TIMEOUT_S)
        found = parse_superblock(said.output).identity
    except Refusal as error:
        if os.environ.get("CONFIRM") == "yes":
            tell(f"damaged, and will be kept beside the new one: {data}")
            return
        raise DeployError(
            f"{data}: {error} CONFIRM: expected yes, to recover it and keep the damaged file "
            "beside it, found nothing. Fix: CONFIRM=yes, if that is what you want"
        ) from None
    raise DeployError(
        f"{data}: expected no data file, or a damaged one, found that of {found}. "
        "Fix: start the replica with it, and it repairs itself from the others: make up "
        f"{deployment.named}. If it cannot run with it, move the file away, and recover then"
    )


def _catch_up(deployment: Deployment, index: int) -> None:
    """It is normal, its state is copied, and the cluster commits with it."""
    begun = time.monotonic()
    settled_at: float | None = None

    def observe() -> tuple[bool, str]:
        nonlocal settled_at
        found = health.of_replicas(deployment)[index]
        sync, now = found.log.sync, time.monotonic()
        is_settled = found.is_normal and not sync.is_under_way
        settled_at = (settled_at or now) if is_settled else None
        copied = f", has copied {sync.copied} of {sync.tables or '?'} tables"
        said = f"{found}{copied if sync.is_under_way else ''}"
        return settled_at is not None and now - settled_at >= _SETTLED_S, said

    def commits() -> tuple[bool, str]:
        canary = health.probe(deployment)
        return canary.commits, canary.detail

    with guarded():
        _wait(observe, f"replica {index} to catch up", _CATCH_UP_TIMEOUT_S)
        _wait(commits, "the cluster to commit with it", health.START_TIMEOUT_S)
    tell(f"replica {index} has caught up, {time.monotonic() - begun:.1f} s after its start")


def _index() -> int:
    return int(host.data.recover_replica)


def _q(path: str) -> str:
    return shlex.quote(path)
