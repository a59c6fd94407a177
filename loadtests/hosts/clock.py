"""How far a host's clock is off from this machine's, as asked over SSH.

A question and its answer take time, and nobody knows on which way how much. So the offset is known
to half of what the quickest of several rounds took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cluster.config.servers import Host
from cluster.refusal import Refusal
from cluster.runtimes import ssh

ROUNDS = 5
#: Seconds of all workers are added up by the whole second in which they end.
OFFSET_MAX_S = 1.0


@dataclass(frozen=True)
class Offset:
    """Seconds by which the host's clock is ahead of ours, and what that is uncertain by."""

    seconds: float
    within: float

    @property
    def ms(self) -> float:
        """In milliseconds, for the report."""
        return 1000 * self.seconds


def measured(host: Host, now: Callable[[], float] = time.time) -> Offset:
    """Ask the host several times. Raises SshError, and Refusal for an answer that is no time."""
    rounds = []
    for _ in range(ROUNDS):
        asked = now()
        said = ssh.run(host, "date +%s.%N").stdout.strip()
        answered = now()
        try:
            rounds.append((asked, float(said), answered))
        except ValueError:
            wanted, fix = "`date +%s.%N` to print a time", "use a host with GNU coreutils"
            raise Refusal(f"load host {host.place}", expected=wanted, found=said, fix=fix) from None
    return best(rounds)


def best(rounds: Iterable[tuple[float, float, float]]) -> Offset:
    """The offset by the quickest of these rounds: asked, said, answered. Pure."""
    asked, said, answered = min(rounds, key=lambda each: each[2] - each[0])
    return Offset(said - (asked + answered) / 2, (answered - asked) / 2)


def check(name: str, offset: Offset) -> None:
    """Refuse a clock that is off for certain. Pure. Raises Refusal."""
    if abs(offset.seconds) - offset.within > OFFSET_MAX_S:
        raise Refusal(
            f"load host {name}",
            expected=f"a clock within {OFFSET_MAX_S:g} s of this machine's",
            found=f"{offset.seconds:+.1f} s",
            fix="install a time service on both, such as chrony",
        )
