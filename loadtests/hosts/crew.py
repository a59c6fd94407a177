"""The workers of a load on their hosts, for one command: muster, work, gather.

The master is locust here, on 127.0.0.1. Each host has a port of its own 127.0.0.1 that leads to it
through the SSH connection which is there anyway, so no port is open to anybody. Whatever ends this
program ends that way, too; a worker that has no master ends by itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster.command import say
from cluster.config import kept
from cluster.config.deployment import Deployment
from cluster.config.servers import Host
from cluster.interruption import whole
from cluster.operate import phase
from cluster.refusal import Failed, Refusal, last_line
from cluster.runtimes import ssh, tunnel
from loadtests.hosts import bundle, clock, observed, record, units
from loadtests.hosts.bundle import Bundle
from loadtests.hosts.clock import Offset
from loadtests.hosts.observed import Observed
from loadtests.hosts.units import Worker

TASK = "tasks.load_host.bring"
INVENTORY = "loadtests/hosts/inventory.py"
#: A worker imports for seconds; on a busy machine it took twenty.
CONNECT_S = 180
_OBSERVE_TIMEOUT_S = 60.0
#: A window of a capacity search and its settling, or two.
BRING_EVERY_S = 10.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Member:
    """One host that is fit."""

    host: Host
    seen: Observed
    offset: Offset


@dataclass(frozen=True)
class Crew:
    """The hosts of a load, with ``each`` workers."""

    members: tuple[Member, ...]
    each: int

    @property
    def workers(self) -> int:
        """All of them."""
        return len(self.members) * self.each

    @contextmanager
    def at_work(
        self, run: Path, lasts_s: float, *, brings_meanwhile: bool = False
    ) -> Iterator[list[str]]:
        """Within, the workers of this run live; yields what locust needs to be their master.

        A run of many windows ``brings_meanwhile``: what the last window has written comes here
        while the next one runs.
        Afterwards none does, and what they have written is in the run's directory, where the run
        has one; what could not be brought is told. Raises Refusal where a worker cannot start.
        """
        (port,) = tunnel.free_ports(1)
        master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
        expected = ["--expect-workers", str(self.workers), "--expect-workers-max-wait"]
        with ExitStack() as ways:
            for member in self.members:
                ways.enter_context(tunnel.back(member.host, member.seen.free_port, port))
            try:
                _together(self.members, lambda member: self._start(member, run.name, lasts_s))
                with self._bringing(run) if brings_meanwhile else nullcontext():
                    yield [*master, *expected, str(CONNECT_S)]
            finally:
                with whole("stopping the load hosts' workers, and bringing their records"):
                    self._gather(run)

    def _start(self, member: Member, run: str, lasts_s: float) -> None:
        host, first = member.host, self.members.index(member) * self.each
        environment, code = bundle.wanted(member.seen)
        for number in range(first, first + self.each):
            worker = Worker(
                run=run,
                number=number,
                host=host.place,
                clock_offset_ms=member.offset.ms,
                rtt_ms=member.seen.rtt_ms,
                master_port=member.seen.free_port,
                lasts_s=lasts_s,
                python=member.seen.python_path,
                environment=environment,
                code=code,
            )
            done = ssh.run(host, units.start(worker))
            if done.returncode:
                raise Failed(
                    f"load host {host.place}",
                    expected="to start a worker",
                    found=last_line(done.stderr),
                    fix="see its journal",
                )

    @contextmanager
    def _bringing(self, run: Path) -> Iterator[None]:
        """Bring the records now and then, one host at a time; the rest comes at the end."""
        is_over = threading.Event()

        def bring() -> None:
            while not is_over.wait(BRING_EVERY_S):
                for member in self.members:
                    if run.is_dir() and not is_over.is_set():
                        with suppress(Refusal, OSError):
                            record.bring(member.host, run.name, run)

        thread = threading.Thread(target=bring, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _gather(self, run: Path) -> None:
        for told in filter(None, _together(self.members, lambda m: _gathered(m.host, run))):
            say(told)
        if run.is_dir():
            for name in record.end_whole(run):
                say(f"{name} ended in the midst of a line: its worker was killed")


def muster(deployment: Deployment, each: int) -> Crew:
    """The deployment's load hosts, checked and with all that a worker needs. Raises Refusal.

    Nothing is brought anywhere before all are reached and found fit.
    """
    addresses = [replica.address for replica in deployment.cluster.replicas]

    def look(host: Host) -> Member:
        done = ssh.run(host, observed.command(addresses), _OBSERVE_TIMEOUT_S)
        seen = observed.parse(done.stdout.splitlines())
        observed.check(host.place, seen, each, deployment.named)
        offset = clock.measured(host)
        clock.check(host.place, offset)
        return Member(host, seen, offset)

    members = tuple(_together(deployment.load_hosts, look))
    for member in members:
        _take_home(member)
    say(f"load hosts: {', '.join(f'{_described(member)}' for member in members)}")
    lacking = {m.host.place: b for m in members if (b := _lacking(m.seen))}
    if lacking:
        say(f"packing and bringing what a worker needs to {', '.join(lacking)}")
        for parcel in {parcel for parcels in lacking.values() for parcel in parcels}:
            parcel.packed()  # here, once: tasks of several hosts only read it
        of = os.environ | {"INVENTORY": str(deployment.inventory)}
        file = str(deployment.inventory)
        phase.run(file, TASK, hosts=INVENTORY, environ=of, quiet=True)
    return Crew(members, each)


def _take_home(member: Member) -> None:
    """What a load has left there that was cut off: its record, where the run is this machine's."""
    for name in member.seen.runs:
        run = kept.runs() / name
        if run.is_dir():
            told = _gathered(member.host, run) or f"{member.host.place}: brought the rest of {name}"
            say(told)
        else:
            place = units.directory(name)
            say(f"{member.host.place} keeps {place} of another machine's load: remove it some time")


def _lacking(seen: Observed) -> list[Bundle]:
    return [each for each in bundle.wanted(seen) if each.name not in seen.bundles]


def _described(member: Member) -> str:
    seen, offset = member.seen, member.offset
    return (
        f"{member.host.place} ({seen.cpus} cores, Python {seen.python}, clock "
        f"{offset.ms:+.1f} ms within {1000 * offset.within:.1f})"
    )


def _gathered(host: Host, run: Path) -> str:
    """Stop, bring, remove; what a person must know of it, or nothing. Never raises for SSH."""
    name = run.name
    there = f"{host.place}:{units.directory(name)}"
    try:
        ssh.run(host, units.stop(name), units.STOP_TIMEOUT_S + ssh.ANSWER_TIMEOUT_S)
        if run.is_dir():
            record.bring(host, name, run)
        said = ssh.run(host, f"{units.last_words(name)}; {units.remove(name)}").stdout
        if run.is_dir():
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            return f"{host.place}: {errors[-1]}" if errors else ""
        return f"{host.place}: no run came of it; its workers' last words: {last_line(said)}"
    except Refusal as error:
        return (
            f"{error}. Its share of the run is unknown: its workers end by themselves, and their "
            f"record stays in {there}"
        )


def _together(parts: Sequence[Member] | Sequence[Host], ask: Callable[..., Answer]) -> list[Answer]:
    """Ask all at the same time; in order. Raises what the first of them raises."""
    with ThreadPoolExecutor(max(1, len(parts))) as pool:
        return list(pool.map(ask, parts))
