"""The wallets of an earlier run, for a later one: found, seen to be there, and taken.

The run that made them notes who takes them, one name a line. Each of these keeps the accounts as it
found them (``accounts-N.bin``), so that every run can still be audited: its balances are those
from which it began and what it moved, up to where the next one found them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np

from cluster.refusal import Refusal
from loadtests.client.bridge import Unanswered
from loadtests.client.columns import among
from loadtests.client.ledger import Ledger
from loadtests.client.records import ACCOUNT, Array
from loadtests.run import runs
from loadtests.run.result import Manifest, Target, read_manifest, read_result, reading

TAKEN_BY = "population-taken-by.txt"
OPTION = "--population"
DEADLINE_S = 60.0
_FOR_EVER = ("id", "ledger", "code", "flags")


class Taken:
    """The population of the run ``name``, which no other run of this machine has until ``close``.

    ``tag`` is in the ids of its accounts; ``wallets`` are of each worker.
    """

    def __init__(self, place: Path, made_by: Manifest) -> None:
        """Raises Refusal where another run has it."""
        self.name, self.tag = made_by.run, made_by.tag
        self.wallets = made_by.settings.wallets
        self._file: IO[str] = (place / TAKEN_BY).open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Refusal(
                OPTION,
                expected="wallets that no run has",
                found=f"another run with those of {self.name}",
                fix="wait for its end",
            ) from None

    def note(self, run: str) -> None:
        """Write down which run has it, before that changes anything."""
        self._file.write(f"{run}\n")
        self._file.flush()

    def close(self) -> None:
        """Let others have it. Idempotent."""
        self._file.close()


def take(name: str, target: Target, reach: str, workers: int) -> Taken:
    """See that the wallets of a run are all in its cluster's ledger, for so many workers.

    A run that has taken another's is a name for those. Raises Refusal.
    """
    place, made_by = _origin(name, target)
    with reading(place):
        accounts = _accounts(place)
    served = len(np.unique(accounts["user_data_32"]))
    if workers > served:
        raise Refusal(
            OPTION,
            expected=f"wallets for {workers} workers",
            found=f"those of {served} in {made_by.run}",
            fix="run as few processes, or name a run with as many",
        )
    with closing(Ledger(int(target.cluster_id), reach, deadline_s=DEADLINE_S)) as ledger:
        ledger.connect(named=target.named)
        try:
            found = ledger.read_accounts(accounts["id"])
        except Unanswered:
            fix = f"see `make status {target.named}`"
            raise Refusal(OPTION, expected="replies", found="none in time", fix=fix) from None
    same = len(found) == len(accounts) and all(
        np.array_equal(found[field], accounts[field]) for field in _FOR_EVER
    )
    if not same:
        raise Refusal(
            OPTION,
            expected=f"the {len(accounts):,} accounts of {made_by.run} in {target.whose}",
            found=f"{len(found):,}" if len(found) < len(accounts) else "others of the same ids",
            fix="name a run of this ledger, or leave it out for fresh wallets",
        )
    return Taken(place, made_by)


def _origin(name: str, target: Target) -> tuple[Path, Manifest]:
    """The run that has made the wallets, and its manifest."""
    place = runs.find(name)
    manifest = read_manifest(place)
    if manifest.settings.population:
        place = runs.find(manifest.settings.population)
        manifest = read_manifest(place)
    if not manifest.target.is_of(target):
        expected, found = f"a run of {target.whose}", f"{name} of {manifest.target.whose}"
        raise Refusal(OPTION, expected=expected, found=found, fix="name one of this cluster")
    if read_result(place) is None:
        found = f"{name}, which goes on or was cut off"
        raise Refusal(OPTION, expected="a run that has ended", found=found, fix="name another")
    return place, manifest


def as_left(run: Path, before: float = float("inf")) -> Callable[[Array], Array]:
    """What turns accounts into those that a run has left: as a later one found what it took.

    They are what a ledger holds now, or held at the unix time ``before``. Raises Refusal where it
    cannot be told any more.
    """
    later = [_by_id(_accounts(each)) for each in _later(run, before)]

    def left(accounts: Array) -> Array:
        found, still = accounts.copy(), np.ones(len(accounts), bool)
        for taken in later:
            lows = np.ascontiguousarray(taken["id"][:, 0])
            mine = still & among(np.ascontiguousarray(found["id"][:, 0]), lows)
            found[mine] = taken[np.searchsorted(lows, found["id"][mine, 0])]
            still &= ~mine
        return found

    return left


def _accounts(run: Path) -> Array:
    """All of a run's workers: a population is in memory, as its wallets are in the workers'."""
    parts = [rows[:] for rows in runs.accounts_of(run)]
    return np.concatenate(parts) if parts else np.empty(0, ACCOUNT)


def _by_id(accounts: Array) -> Array:
    ordered: Array = accounts[np.argsort(accounts["id"][:, 0])]
    return ordered


def _beside(run: Path, name: str) -> Path:
    """Another run: where this one is, or where runs are kept."""
    beside = run.parent / name
    return beside if beside.is_dir() else runs.directory() / name


def _later(run: Path, before: float) -> Iterator[Path]:
    """The runs that took the same wallets after this one, the earliest first."""
    manifest = read_manifest(run)
    origin = _beside(run, manifest.settings.population) if manifest.settings.population else run
    if not (origin / runs.MANIFEST).is_file():
        fix = "bring it back"
        raise Refusal("the run that has made the wallets", expected=origin, found="none", fix=fix)
    if not (origin / TAKEN_BY).is_file():
        return
    names = (origin / TAKEN_BY).read_text(encoding="utf-8").split()
    for name in names[names.index(manifest.run) + 1 if manifest.run in names else 0 :]:
        later = _beside(origin, name)
        if read_manifest(later).started <= before:
            yield later
