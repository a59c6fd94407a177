"""One phase of an operation: a pyinfra task, run on every host of an inventory, shown as it runs.

An operation such as a restore has several phases, with decisions in between. A phase that fails on
one host stops on all hosts, and the operation then undoes the phases before it. Why it failed is
the last that is said, in a line of ours: which server, why, and what to do now.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from cluster import REPOSITORY
from cluster.command import by_inventory
from cluster.config import check, inventory
from cluster.config.deployment import Deployment
from cluster.health import health
from cluster.interruption import say, whole
from cluster.operate import last_word
from cluster.refusal import Failed, Interrupted, Refusal
from cluster.tigerbeetle.data_file import spared

if TYPE_CHECKING:
    from pyinfra.api import State

#: Packing or unpacking is at the disk's speed: hours only for terabytes.
TIMEOUT_S = 6 * 3600.0
#: A phase that is interrupted first ends what may not be cut in two: a replica's restart.
_END_TIMEOUT_S = 120.0
_TERM_TIMEOUT_S = 10.0
#: The task that can do without a server, where that is asked for.
_STOP = "tasks.replica.stop"
#: What pyinfra tells: an operation that begins, and a line of a host.
_BEGUN = re.compile(r"--> Starting (?:.* )?operation: (.*)")
_OF_HOST = re.compile(r"\[([^]]+)\](?: nested)? +(\S.*)")
#: Lines of a host that say nothing: the one before says why.
_MERE = ("Error: executed", "Error in nested", "Error:")


class Refused(Failed):
    """A phase that has ended before it changed anything: a server is away, or a check refuses."""


def run(
    inventory_file: str,
    task: str,
    *,
    data: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    hosts: str | None = None,
    quiet: bool = False,
) -> None:
    """Run ``task`` (a deploy file, or ``tasks.MODULE.NAME``); ``data`` becomes host data.

    ``environ`` is the environment, if not this process's own; ``hosts`` an inventory of others
    that serve this cluster; ``quiet`` shows what pyinfra says
    only when it fails. Raises Failed with the reason, also when it takes longer than TIMEOUT_S, and
    Refused where nothing was changed.
    """
    given = [f"--data={key}={value}" for key, value in (data or {}).items()]
    reading, writing = os.pipe()
    told = [f"--told={writing}", f"--inventory={inventory_file}"]
    told += [f"--hosts={hosts}"] if hosts else []
    with os.fdopen(reading, errors="replace") as reason:
        with contextlib.ExitStack() as ended:
            with whole("beginning the next step"):  # or nobody would end what has just begun
                process = subprocess.Popen(
                    [sys.executable, "-m", "cluster", "run", *told, *given, task],
                    cwd=REPOSITORY,
                    pass_fds=[writing],
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    errors="replace",
                    stdout=subprocess.PIPE if quiet else None,
                    stderr=subprocess.STDOUT if quiet else None,
                    start_new_session=True,  # a terminal's Ctrl-C is answered here, for all
                )
                ended.enter_context(process)
                ended.callback(end, process)
                os.close(writing)
            try:
                said, _ = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise Failed(f"{task}: no end within {TIMEOUT_S:g} s") from None
        why = reason.read()
    if process.returncode != 0:
        if said:
            say(said.rstrip())
        is_refused = why and process.returncode == Refusal.exit_code
        raise (Refused if is_refused else Failed)(why or f"{task}: failed, see above")


def end(process: subprocess.Popen[str]) -> None:
    """End a program that leads a session of its own, and everything in it; at once if it has."""
    with whole("ending the step that is under way"):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_TIMEOUT_S)
        until = time.monotonic() + _TERM_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(process.pid, signal.SIGTERM)
                process.poll()
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@click.command()
@by_inventory
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Host data, for this run alone.")
@click.option("--hosts", help="An inventory of other hosts that serve this cluster.")
@click.option("--away", help=f"Replicas whose servers are left out: 2, or 1,2. For {_STOP} alone.")
@click.option("--told", type=int, hidden=True)
@click.argument("task", default="deploy.py")
def main(
    file: str,
    data: tuple[str, ...],
    hosts: str | None,
    away: str | None,
    told: int | None,
    task: str,
) -> None:
    """Run TASK with pyinfra, in this program; by default, deploy.

    The inventory is checked first: a bad one ends in one line, before anything is started.
    Exit codes: 0 done, 1 failed, 2 refused (nothing was changed), 130 interrupted. The last line
    says why, and which replicas run.
    """
    if told is not None:  # ``run`` has started this, and has the last word
        with _telling(told):
            _pyinfra(inventory.read(file), task, data, hosts)
        return
    deployment = check.say(file)
    left_out = read_away(deployment, away) if away is not None else []
    with last_word.said(deployment) if hosts is None else contextlib.nullcontext():
        _pyinfra(deployment, task, data, hosts, left_out)
    for index in left_out:
        print(
            f"replica {index} was not stopped: its server was left out. If it runs there, or "
            f"starts with it: make down {deployment.named}, when that is back"
        )


@contextlib.contextmanager
def _telling(descriptor: int) -> Iterator[None]:
    """Say why it ends to whoever has started this, and nobody else."""
    os.set_inheritable(descriptor, False)  # who waits for its end must not wait for a daemon's
    try:
        yield
    except Refusal as refusal:
        with os.fdopen(descriptor, "w") as reason:
            reason.write(str(refusal))
        sys.exit(refusal.exit_code)


def read_away(deployment: Deployment, away: str) -> list[int]:
    """The replicas that AWAY= names. Raises Refusal."""
    known = [replica.index for replica in deployment.cluster.replicas]
    _ = deployment.of_servers  # raises for an inventory of this machine
    named = {each.strip() for each in away.split(",")}
    if not named < {str(index) for index in known}:
        wanted = f"some of {', '.join(map(str, known))}, not all"
        fix = "name the replicas whose servers cannot be reached"
        raise Refusal("AWAY", expected=wanted, found=away, fix=fix)
    return sorted(map(int, named))


def _pyinfra(
    deployment: Deployment,
    task: str,
    data: Iterable[str] = (),
    hosts: str | None = None,
    left_out: Collection[int] = (),
) -> None:
    """As its own ``main``, which would answer Ctrl-C by success, and a failure by a percentage.

    Raises Refusal where nothing was changed, else Failed.
    """
    # Here: it takes half a second, and patches Python.
    import pyinfra
    from pyinfra.api.exceptions import DeployError
    from pyinfra.api.output import set_echo, set_formatter
    from pyinfra_cli.cli import cli  # type: ignore[import-untyped]
    from pyinfra_cli.exceptions import WrappedError  # type: ignore[import-untyped]

    pyinfra.is_cli = True
    set_formatter(click.style)
    set_echo(click.echo)
    sys.path.append(".")
    arguments = ["--yes", "--fail-percent=0", *(f"--data={value}" for value in data)]
    if left_out:
        arguments.append(f"--data=away={','.join(map(str, left_out))}")
        arguments += [f"--exclude={deployment.cluster.replicas[i].name}" for i in left_out]
    heard = Heard()
    pyinfra.logger.addHandler(heard)
    try:
        cli([*arguments, hosts or str(deployment.inventory), task], standalone_mode=False)
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:
            raise KeyboardInterrupt from None
        if ended.code:
            raise
    except WrappedError as error:
        refused = str(error.exception) if isinstance(error.exception, DeployError) else ""
        raise _ended(pyinfra.state, heard, deployment, task, refused) from None
    finally:
        pyinfra.logger.removeHandler(heard)


class Heard(logging.Handler):
    """The operation that runs, and what each host has said of its errors: mostly why it failed."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.doing = ""
        self.why: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """A line with a fix counts more than what comes after it."""
        text = click.unstyle(str(record.getMessage()))
        if begun := _BEGUN.match(text):
            self.doing, self.why = begun[1].strip().rpartition(" | ")[2], {}
        elif record.levelno >= logging.WARNING and (said := _OF_HOST.match(text)):
            host, line = said[1], said[2].strip().removeprefix("error: ")
            if not line.startswith(_MERE) and "Fix: " not in self.why.get(host, ""):
                self.why[host] = line

    def reason(self) -> str:
        """All that the hosts have said, in one line."""
        lines = dict.fromkeys(
            ("" if host == "@local" else f"{host}: ") + line for host, line in self.why.items()
        )
        said = "; ".join(lines) or "failed"
        return said if "Fix: " in said else f"{self.doing}: {said}; see above"


def _ended(state: State, heard: Heard, deployment: Deployment, task: str, refused: str) -> Refusal:
    """What it ended with, in words of ours; ``refused`` are those of a task that refuses."""
    from pyinfra.api.state import StateStage

    out = [host for host in state.inventory if host in state.failed_hosts]
    if state.current_stage <= StateStage.Connect and out:
        why = {host.data.get("replica"): heard.why.get(host.name, "no answer") for host in out}
        return away(why, deployment, task)
    first, *more = refused.splitlines() or [heard.reason()]
    for line in more:
        say(line)
    return (Refusal if state.current_stage < StateStage.Execute else Failed)(first)


def away(why: Mapping[int | None, str], deployment: Deployment, task: str) -> Refusal:
    """Servers could not be reached: whose (None: the monitoring host's), and why. Pure."""
    named = {server.replica: server.hostname for server in deployment.servers}
    parts = {index: said.partition(". Fix: ") for index, said in why.items()}
    found = "; ".join(
        f"replica {index}'s, {named[index]}: {said.removeprefix(f'{named[index]}: ')}"
        if index in named
        else f"another: {said}"
        for index, (said, _, _) in parts.items()
    )
    own = "; ".join(dict.fromkeys(fix.removesuffix(".") for *_, fix in parts.values() if fix))
    fix = f"{own or 'bring it back, or correct ssh_user, ssh_key or known_hosts'}; then repeat"
    # Who is there and lets nobody in is not lost.
    is_there = all(health.remedy(said, "") for said, _, _ in parts.values())
    indexes, count = [index for index in why if index is not None], len(named)
    if task == _STOP and len(indexes) < count:
        others = f"make down {deployment.named} AWAY={','.join(map(str, indexes))}"
        fix += f"; to stop the others alone: {others}"
    elif indexes and not is_there:
        is_spared, is_left = len(indexes) <= spared(count), len(indexes) < count
        page = "runbooks/lost-host.md" if is_spared else "runbooks/lost-majority.md"
        fix += f"; if it is lost: docs/{page if is_left else 'servers.md#all-servers-are-lost'}"
    return Refusal(
        deployment.name,
        expected="to reach every server over SSH, before anything is changed",
        found=found,
        fix=fix,
    )
