"""The audit of a run reads all of its ledger, and holds little of it: see ``proof``."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import closing
from pathlib import Path

import gevent

from cluster.refusal import Refusal
from loadtests.client.bridge import Unanswered
from loadtests.client.ledger import Ledger
from loadtests.client.progress import Progress
from loadtests.client.records import BATCH_MAX, pieces
from loadtests.proof.books import Books
from loadtests.proof.proof import Proof, verdict_of
from loadtests.proof.record import Part, Record
from loadtests.run import runs
from loadtests.run.result import Audit, Check, Manifest, read_manifest, read_result
from loadtests.run.target import way
from loadtests.traffic.population import as_left
from loadtests.wallet.bank import EXPIRY_SLACK_S

CONNECT_TIMEOUT_S = 30.0
DEADLINE_S = 60.0
#: Accounts that are read and compared at a time.
ACCOUNTS_AT_ONCE = 4 * BATCH_MAX
#: They convict by what the record does not have: while a part of it is missing, they cannot.
_BY_ABSENCE = frozenset({"nothing else", "holds settled", "balances"})


def audit(
    run: Path, *, connect_timeout_s: float | None = None, inventory: str | None = None
) -> Audit:
    """Prove one run, and write audit.json beside it. Never raises for what it cannot read.

    ``inventory`` is its cluster's, where a person has named one. With a timeout, a cluster that is
    away is waited for.
    """
    started = time.monotonic()
    manifest = read_manifest(run)
    checks = [check_complete(run)]
    proof: Proof | None = None
    accounts_read = 0
    try:
        parts = [Part(lines) for lines in runs.records_of(run)]
        proof = Proof(Record(parts, int(manifest.tag), run))
        found, accounts_read = _read(run, manifest, proof, connect_timeout_s, inventory)
        checks += found if checks[0].verdict == "passed" else map(undecided, found)
    except (Refusal, Unanswered, OSError, ValueError) as error:
        checks.append(Check(name="readable", verdict="unknown", detail=str(error)))
    audit = Audit(
        run=run.name,
        cluster=manifest.target.whose,
        verdict=verdict_of(checks),
        checks=checks,
        transfers_checked=proof.count if proof else 0,
        accounts_checked=accounts_read,
        unknown_resolved=getattr(proof, "resolved", {}),
        seconds=round(time.monotonic() - started, 3),
        peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )
    runs.write_json(run / "audit.json", audit.model_dump_json(indent=2))
    return audit


def undecided(check: Check) -> Check:
    """A check of a record that is not whole: what is missing there may only be missing here."""
    if check.verdict != "failed" or check.name not in _BY_ABSENCE:
        return check
    detail = f"not decided without the whole record: {check.detail}"
    return check.model_copy(update={"verdict": "unknown", "detail": detail})


def check_complete(run: Path) -> Check:
    """Whether the run ended properly, and its whole record is here."""
    name, result = "record complete", read_result(run)
    if result is None:
        detail = "there is no result.json: the run was cut off, so its record may lack answers"
        return Check(name=name, verdict="unknown", detail=detail)
    try:
        lines = sum(map(len, runs.records_of(run)))
    except ValueError as error:
        return Check(name=name, verdict="unknown", detail=str(error))
    if lost := [f"{each.worker} on {each.host}" for each in result.by_worker if not each.complete]:
        detail = f"worker {', '.join(lost)} never handed in its figures: its share is unknown"
        return Check(name=name, verdict="unknown", detail=detail)
    if not result.complete or lines != result.transfers_sent:
        detail = (
            f"expected {result.transfers_sent:,} lines of {result.workers} workers, "
            f"found {lines:,}. Fix: copy the record-*.bin and accounts-*.bin of every worker's "
            "machine here"
        )
        return Check(name=name, verdict="unknown", detail=detail)
    return Check(name=name, verdict="passed", detail=f"{lines:,} lines of {result.workers} workers")


def _read(
    run: Path,
    manifest: Manifest,
    proof: Proof,
    connect_timeout_s: float | None,
    inventory: str | None,
) -> tuple[list[Check], int]:
    cluster_id = int(manifest.target.cluster_id)
    addresses = way(manifest.target, inventory, is_awaited=connect_timeout_s is not None)
    with closing(Ledger(cluster_id, addresses, deadline_s=DEADLINE_S)) as ledger:
        ledger.connect(connect_timeout_s or CONNECT_TIMEOUT_S, named=manifest.target.named)
        progress = Progress("transfers compared", len(proof.record), _say)
        for page in ledger.transfers_of_run(int(manifest.tag)):
            proof.add_page(page)
            progress.show(proof.count)
        proof.stored(Progress("lines looked up", len(proof.record), _say).show)
        books = _settled_books(ledger, run, proof.last_expiry_ns())
    return proof.checks(books), books.count


def _settled_books(ledger: Ledger, run: Path, last_expiry_ns: int) -> Books:
    """The run's accounts, after the last hold has timed out, or after the longest wait."""
    left = as_left(run)
    until = time.monotonic() + max(0.0, last_expiry_ns / 1e9 - time.time()) + EXPIRY_SLACK_S
    while True:
        books = Books(run)
        for accounts in runs.accounts_of(run):
            for _, asked in pieces(accounts, ACCOUNTS_AT_ONCE):
                books.add(left(ledger.read_accounts(asked["id"])), asked)
        if not books.pending or time.monotonic() > until:
            return books
        _say(f"{books.pending:,} accounts wait for holds to time out")
        gevent.sleep(1)


def _say(text: str) -> None:
    print(f"audit: {text}", file=sys.stderr, flush=True)
