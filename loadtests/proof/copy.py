"""The proof that a copy of a ledger, taken of one instant, holds what a run had been told before.

The claims are those of ``proof``, of what the run knew at that instant: see ``cut``. Holds may be
pending in a copy. Runs of load are proven, and recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cluster.checks.server import CLOCK_SPREAD_MAX_S
from cluster.refusal import Refusal
from loadtests.client.bridge import Unanswered
from loadtests.client.columns import among_ids
from loadtests.client.ledger import Ledger
from loadtests.client.records import Array, Rows, pieces
from loadtests.proof import cut
from loadtests.proof.audit import ACCOUNTS_AT_ONCE, DEADLINE_S, check_complete, undecided
from loadtests.proof.books import Books
from loadtests.proof.proof import Proof
from loadtests.proof.record import Part, Record, of_operations, tag_of
from loadtests.run import history, runs
from loadtests.run.result import Check, Verdict, read_manifest
from loadtests.traffic.population import as_left
from loadtests.wallet.packing import pack_accounts

_CONNECT_TIMEOUT_S = 60.0
#: Of a copy it cannot be told: holds are pending, since their run goes on in the original alone.
_NOT_OF_A_COPY = "holds settled"


@dataclass(frozen=True)
class Known:
    """What a run knew at an instant."""

    tag: int
    parts: list[Part]
    accounts: list[Rows]
    complete: Check
    run: Path | None = None  # where later runs may have taken the accounts over
    taken_at: float = float("inf")
    folder: Path | None = None

    @property
    def record(self) -> Record:
        """All lines, with what was answered before."""
        return Record(self.parts, self.tag, self.folder)

    @property
    def count(self) -> int:
        """Lines that were answered before the instant for certain."""
        return sum(part.before_count for part in self.parts)


def known(run: Path, taken_at: datetime, *, is_one_clock: bool) -> Known:
    """What the run in this directory knew when a copy was taken.

    Raises Refusal for a run of which nothing was answered before: the copy proves nothing of it.
    """
    limit_ns = cut.limit_ns(taken_at, is_one_clock=is_one_clock)
    try:
        read = _recorded if (run / history.FILE).is_file() else _loaded
        found = replace(read(run, limit_ns), taken_at=taken_at.timestamp())
    except ValueError as error:
        fix = "copy the record-*.bin and accounts-*.bin of every worker's machine here"
        raise Refusal(
            f"RUN {run.name}", expected="its whole record", found=error, fix=fix
        ) from None
    if not found.count:
        began = datetime.fromtimestamp((found.tag >> 16) / 1000, UTC)
        margin = "" if is_one_clock else f" (less {CLOCK_SPREAD_MAX_S:g} s, for its clocks)"
        raise Refusal(
            "RUN",
            expected=f"one with answers from before the backup was taken, at {taken_at:%FT%TZ}"
            f"{margin}",
            found=f"{run.name}, begun at {began:%FT%TZ}, with none",
            fix="name an earlier run, or FROM= a backup that was taken during it or after it",
        )
    return found


def prove(what: Known, cluster_id: int, addresses: str) -> list[Check]:
    """Read all of the run in the copy that answers there. Never raises for what it cannot read."""
    proof = Proof(what.record)
    try:
        with closing(Ledger(cluster_id, addresses, deadline_s=DEADLINE_S)) as ledger:
            ledger.connect(_CONNECT_TIMEOUT_S)
            for page in ledger.transfers_of_run(what.tag):
                proof.add_page(page)
            left = as_left(what.run, what.taken_at) if what.run else lambda found: found
            books = books_of(what, lambda ids: left(ledger.read_accounts(ids)))
        return [what.complete, *judged(what, proof, books)]
    except (Refusal, Unanswered, OSError) as error:
        return [what.complete, Check(name="readable", verdict="unknown", detail=str(error))]


def books_of(what: Known, read: Callable[[Array], Array]) -> Books:
    """The run's accounts that the copy has; ``read`` finds accounts there by their ids."""
    books = Books(what.folder)
    for accounts in what.accounts:
        for _, asked in pieces(accounts, ACCOUNTS_AT_ONCE):
            found = read(asked["id"])
            books.add(found, asked[among_ids(asked["id"], found["id"])])  # some may be made later
    return books


def judged(what: Known, proof: Proof, books: Books) -> list[Check]:
    """What the pages that ``proof`` has seen, and the accounts found, say of the copy. Pure."""
    checks = [check for check in proof.checks(books) if check.name != _NOT_OF_A_COPY]
    return checks if what.complete.verdict == "passed" else list(map(undecided, checks))


def _loaded(run: Path, limit_ns: int) -> Known:
    return Known(
        tag=int(read_manifest(run).tag),
        parts=[Part(each, cut.count_before(each, limit_ns)) for each in runs.records_of(run)],
        accounts=runs.accounts_of(run),
        complete=check_complete(run),
        folder=run,
        run=run,
    )


def _recorded(run: Path, limit_ns: int) -> Known:
    whole = history.read(run)
    lines, before = of_operations(whole.operations, cut.numbers_before(whole.operations, limit_ns))
    made = {one.id: one for operation in whole.operations for one in operation.accounts}
    verdict: Verdict = "passed" if whole.is_complete else "unknown"
    said = f"{len(whole.operations):,} operations"
    if not whole.is_complete:
        said += ", and no end: the history was cut off"
    return Known(
        tag=tag_of(whole.operations),
        parts=[Part(lines, before)],
        accounts=[pack_accounts(made.values())],
        complete=Check(name="record complete", verdict=verdict, detail=said),
    )
