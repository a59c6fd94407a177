"""Many seeds against a pair of servers, and what was learnt."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.emulator import records, servers
from tests.emulator.differential.runner import Divergence, Statistics, run
from tests.emulator.differential.shrink import shrink
from tests.emulator.differential.steps import Step
from tests.emulator.differential.workload import Workload
from tests.emulator.native import NativeClient
from tigerbeetle_emulator.protocol.status import CreateAccountStatus, CreateTransferStatus

# 18 is dead since 0.16.33 and has no name here; 53 needs a clock near the year 2262.
UNREACHABLE = {CreateTransferStatus.OVERFLOWS_TIMEOUT}


@dataclass
class Campaign:
    """The result of running several seeds."""

    statistics: Statistics = field(default_factory=Statistics)
    divergences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def missing(self) -> list[str]:
        """Reachable statuses that never came up."""
        seen = self.statistics.statuses
        missing = [
            f"create_accounts {status.name}"
            for status in CreateAccountStatus
            if status not in seen[records.CREATE_ACCOUNTS]
        ]
        return missing + [
            f"create_transfers {status.name}"
            for status in CreateTransferStatus
            if status not in seen[records.CREATE_TRANSFERS] and status not in UNREACHABLE
        ]

    def report(self) -> str:
        """Figures for a person."""
        seen = self.statistics.statuses
        accounts, transfers = (len(seen[operation]) for operation in seen)
        lines = [
            f"compared {self.statistics.events:,} create events and "
            f"{self.statistics.records:,} records in {self.statistics.requests:,} requests "
            f"({self.seconds:.0f} s)",
            f"status codes hit: create_accounts {accounts} of {len(CreateAccountStatus)}, "
            f"create_transfers {transfers} of {len(CreateTransferStatus) - len(UNREACHABLE)}",
            f"never hit: {', '.join(self.missing()) or 'none'}",
            f"divergences: {len(self.divergences)}",
        ]
        return "\n".join(lines + self.divergences)


def explore(
    seeds: list[int],
    count: int,
    clients: tuple[NativeClient, NativeClient],
    say: Callable[[str], None] = lambda line: None,
) -> Campaign:
    """Run `count` steps of each seed; every divergence is shortened."""
    campaign, started = Campaign(), time.monotonic()
    namespaces = itertools.count(time.time_ns() & ~0xFFFFFF)
    for seed in seeds:
        steps = Workload(seed).steps(count)
        divergence = run(steps, clients, next(namespaces), campaign.statistics)
        if divergence:
            campaign.divergences.append(_shortened(seed, steps, divergence, clients, namespaces))
            say(campaign.divergences[-1])
        say(f"seed {seed}: {campaign.statistics.events:,} events so far")
    campaign.seconds = time.monotonic() - started
    return campaign


def _shortened(
    seed: int,
    steps: list[Step],
    divergence: Divergence,
    clients: tuple[NativeClient, NativeClient],
    namespaces: itertools.count[int],
) -> str:
    """A divergence with the shortest sequence of steps that shows one."""
    prefix = [step for step in steps if step.uid <= divergence.step.uid]
    last = [divergence]

    def fails(candidate: list[Step]) -> bool:
        found = run(candidate, clients, next(namespaces), Statistics())
        if found:
            last[0] = found
        return found is not None

    short = shrink(prefix, fails)
    shown = "\n".join(f"    {step.operation} {step.packets}" for step in short)
    return f"seed {seed}: {last[0]}\n  reproduced by {len(short)} steps:\n{shown}"


def pair(directory: Path, binary: str) -> tuple[servers.ServerProcess, servers.ServerProcess]:
    """An emulator and a genuine server, started."""
    (directory / "emulator").mkdir()
    (directory / "genuine").mkdir()
    one = servers.ServerProcess(servers.EMULATOR, directory / "emulator")
    other = servers.ServerProcess((binary,), directory / "genuine", options=("--cache-grid=64MiB",))
    return one.start(), other.start()
