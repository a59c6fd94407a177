"""The proof that a copy of a ledger, taken of one instant, holds what a run had been told before.

The claims are those of ``proof``, of what the run knew at that instant: see ``cut``. Holds may be
pending in a copy. Runs of load are proven, and recorded ones.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cluster.checks.server import CLOCK_SPREAD_MAX_S
from cluster.refusal import Refusal
from loadtests.client.bridge import Unanswered
from loadtests.client.columns import among_ids
from loadtests.client.ledger import Ledger
from loadtests.client.records import Array
from loadtests.proof import cut
from loadtests.proof.audit import DEADLINE_S, check_complete, undecided
from loadtests.proof.proof import Proof
from loadtests.proof.record import Mask, Record, of_operations, tag_of
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
    lines: Array
    before: Mask
    accounts: Array
    complete: Check
    run: Path | None = None  # where later runs may have taken the accounts over
    taken_at: float = float("inf")

    @property
    def count(self) -> int:
        """Lines that were answered before the instant for certain."""
        return int(np.count_nonzero(self.before))


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
    proof = Proof(Record(what.lines, what.tag, what.before))
    try:
        with closing(Ledger(cluster_id, addresses, deadline_s=DEADLINE_S)) as ledger:
            ledger.connect(_CONNECT_TIMEOUT_S)
            for page in ledger.transfers_of_run(what.tag):
                proof.add_page(page)
            found = ledger.read_accounts(what.accounts["id"])
            if what.run:
                found = as_left(what.run, found, what.taken_at)
    except (Refusal, Unanswered) as error:
        return [what.complete, Check(name="readable", verdict="unknown", detail=str(error))]
    return [what.complete, *judged(what, proof, found)]


def judged(what: Known, proof: Proof, found: Array) -> list[Check]:
    """What the pages that ``proof`` has seen, and the accounts found, say of the copy. Pure."""
    asked = what.accounts[among_ids(what.accounts["id"], found["id"])]  # some may be made later
    checks = [check for check in proof.finish(found, asked) if check.name != _NOT_OF_A_COPY]
    return checks if what.complete.verdict == "passed" else list(map(undecided, checks))


def _loaded(run: Path, limit_ns: int) -> Known:
    workers = runs.read_records(run)
    masks = [cut.before(lines, limit_ns) for lines in workers]
    return Known(
        tag=int(read_manifest(run).tag),
        lines=runs.joined(workers),
        before=np.concatenate(masks) if masks else np.empty(0, bool),
        accounts=runs.read_accounts(run),
        complete=check_complete(run),
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
        lines=lines,
        before=before,
        accounts=pack_accounts(made.values()),
        complete=Check(name="record complete", verdict=verdict, detail=said),
    )
