"""``make migrate FROM= TO=``: a whole ledger into a new, empty cluster, of any size.

FROM and TO are inventories, or CLUSTER_ID@IP:PORT,IP:PORT. The old cluster serves while it is
copied. When the new one has caught up, the command says so: then the services in front of the old
one are stopped, and somebody gives the word, ``stopped``: no look at a cluster can tell a service
that is stopped from one that is silent. What comes after the word all the same is found, and fails
the migration. May be repeated: it goes on after the newest transfer that the new cluster has. Ends
with a proof by reading both.
"""

from __future__ import annotations

import select
import shlex
import sys
import time

import click

from cluster.config import kept
from cluster.operate.migrate import clusters
from cluster.operate.migrate.clusters import Cluster
from cluster.operate.migrate.passes import Move, Pass
from cluster.refusal import Failed, Refusal, begun
from loadtests.client.progress import Progress

#: How long holds that may still run out are waited for; those that take longer are refused.
HOLDS_WAIT_S = 60.0
#: With the services stopped, two looks so far apart must find nothing new: a request may have been
#: under way when its service was stopped.
SILENCE_S = 2.0
#: A pass that takes no longer than this has caught up, and so has one that is no shorter than the
#: one before it: the stop will then take about as long.
CAUGHT_UP_S = 2.0
_BETWEEN_S = 1.0
_WORD_WAIT_S = 24 * 3600.0
_PROGRESS_S = 2.0
#: So often what comes after the word is taken along: what was under way, not a service that runs.
_TRIES = 3
WORD = "stopped"


def migrate(move: Move, word: Word | None) -> list[str]:
    """Move everything; how the two differ afterwards. Raises Refusal.

    Without a word to wait for, it was given beforehand.
    """
    source, target = move.source, move.target
    move.begin()
    if word:
        print(f"{source.label}: is copied while it serves", flush=True)
        _follow(move, word)
    told = looked = time.monotonic()
    last, problems = source.newest(), move.problems
    for _ in range(_TRIES):
        if problems := move.problems or _settle(move):
            break
        if (now := source.newest()) != last:
            last, looked = now, time.monotonic()
        problems = move.prove()
        time.sleep(max(0.0, SILENCE_S - (time.monotonic() - looked)))
        if (now := source.newest()) == last and not move.is_behind(now):
            break
        last, looked = now, time.monotonic()
    else:
        newest = _clock(source.newest().transfer)
        problems = [
            *problems,
            f"the old cluster, since: its newest transfer is of {newest}",
            "the old cluster moved on: stop the services in front of it, then repeat",
        ]
    print(
        f"{target.label}: {move.transfers:,} transfers of the old cluster compared; "
        f"{move.left_out:,} holds that ran out are left out"
    )
    _tell_downtime(time.monotonic() - told, last.transfer)
    return problems


def _follow(move: Move, word: Word) -> None:
    """Copy what there is and what comes, until the word is given. Raises Failed without one."""
    before_s = float("inf")
    while not move.problems:
        done = _pass(move)
        if done.seconds <= CAUGHT_UP_S or done.seconds >= before_s:
            break
        before_s = done.seconds
    else:
        return
    _ask(move, done)
    count, progress = 0, Progress(f"  {move.target.name}: transfers imported since", every_s=10)
    # Half of the time, the old cluster has no more to do than to serve.
    while not move.problems and not word.is_given(max(_BETWEEN_S, done.seconds)):
        done = move.catch_up()
        progress.show(count := count + done.imported)


def _ask(move: Move, done: Pass) -> None:
    """Say that the services can be stopped now, and what this will wait for afterwards."""
    print(f"{move.target.name} has caught up: the last pass took {done.seconds:.1f} s")
    if done.alive.count:
        left_s = max(0.0, done.alive.ends_ns / 1e9 - time.time())
        print(
            f"  {done.alive.count:,} holds may still run out, the last one in {left_s:,.0f} s, and "
            f"{done.behind:,} transfers wait for them. Once the services are stopped, holds that "
            f"end within {HOLDS_WAIT_S:g} s are waited for; post or void others before"
        )
    print(
        f"stop the services in front of {move.source.label} now, all of them; then type: {WORD}",
        flush=True,
    )


def _settle(move: Move) -> list[str]:
    """The last passes, with the services stopped, until no hold can run out; what differs.

    Holds that end within HOLDS_WAIT_S are waited for. New ones do not prolong that. Raises Refusal.
    """
    deadline_ns = time.time_ns() + int(HOLDS_WAIT_S * 1e9)
    while True:
        now_ns = time.time_ns()
        alive = _pass(move, now_ns).alive
        if not alive.count or move.problems:
            return move.problems
        if alive.ends_ns > deadline_ns:
            raise alive.refusal(now_ns)
        name = move.source.name
        print(f"{name}: {alive.count:,} holds may still run out: waiting until none can")
        while (left_s := (alive.ends_ns - time.time_ns()) / 1e9) > 0:
            print(f"  {name}: the last one ends in {left_s:.0f} s", flush=True)
            time.sleep(min(left_s, _PROGRESS_S))


def _pass(move: Move, now_ns: int | None = None) -> Pass:
    """One pass; a line says what it has brought, if it is the first, or has brought something."""
    is_first = not move.transfers
    done = move.catch_up(now_ns)
    if done.imported or is_first:
        rate = done.imported / max(done.seconds, 1e-9)
        print(
            f"{move.target.label}: {done.imported:,} transfers imported in {done.seconds:.1f} s "
            f"({rate:,.0f} a second)",
            flush=True,
        )
    return done


def _tell_downtime(stop_s: float, newest: int) -> None:
    since_s = time.time() - newest / 1e9
    said = f"downtime: {stop_s:.1f} s since the word that the services are stopped"
    print(f"{said}; {since_s:,.1f} s since the last transfer of the old cluster, by its clock")


class Word:
    """The word on standard input that the services are stopped."""

    def __init__(self, again: str) -> None:
        """``again`` is what to do where nobody is there to give it."""
        self._again, self._until = again, time.monotonic() + _WORD_WAIT_S

    def is_given(self, wait_s: float) -> bool:
        """Whether it is typed within this time. Raises Failed when nobody will type any more."""
        while select.select([sys.stdin], [], [], wait_s)[0]:
            line = sys.stdin.readline()
            if line.strip() == WORD:
                return True
            if not line:
                raise self._failed("the end of standard input")
            print(f"expected {WORD}, found {line.strip()}: still copying", flush=True)
        if time.monotonic() > self._until:
            raise self._failed("none within a day")
        return False

    def _failed(self, found: str) -> Failed:
        wanted = f"the word {WORD} once they are"
        return Failed(
            "the services in front of FROM",
            expected=wanted,
            found=f"{found}; what was copied stays",
            fix=self._again,
        )


def _clock(stamp: int) -> str:
    return time.strftime("%FT%TZ", time.gmtime(stamp // 10**9)) if stamp else "no time"


@click.command()
@click.option("--from", "source", default="", metavar="CLUSTER")
@click.option("--to", "target", default="", metavar="CLUSTER")
@click.option("--stopped", is_flag=True, help="All services in front of FROM are stopped already.")
def main(source: str, target: str, stopped: bool) -> int:
    """Move a whole ledger into a new, empty cluster, and prove that both are equal.

    CLUSTER is an inventory, or CLUSTER_ID@IP:PORT,IP:PORT. Without --stopped, the old cluster may
    serve until this asks for the word that it does not any more.

    Exit codes: 0 both ledgers are equal, 1 they are not, 2 refused (nothing was written).
    """
    places = {"FROM": clusters.resolve("FROM", source), "TO": clusters.resolve("TO", target)}
    if places["FROM"].is_of(places["TO"]):
        raise Refusal("TO: expected another cluster than FROM, found the same. Fix: TO=")
    old, new = (Cluster(name, place) for name, place in places.items())
    folder = kept.runs()
    folder.mkdir(parents=True, exist_ok=True)  # what does not fit into memory is sorted there
    move = Move(old, new, folder)
    given = f"FROM={shlex.quote(source)} TO={shlex.quote(target)}"
    again = f"stop them, then make migrate {given} STOPPED=yes"
    try:
        with begun():
            problems = migrate(move, None if stopped else Word(again))
    finally:
        old.close()
        new.close()
    for problem in problems:
        print(f"  {problem}")
    if problems:
        print(f"migration FAILED: do not use the new cluster, {new.label}")
        return 1
    print(f"migration passed: {new.label}: every account, balance and transfer is equal")
    return 0
