"""``make audit``: prove a run's ledger, transfer by transfer, and write its report again."""

from __future__ import annotations

from datetime import datetime

import click

from cluster import DEFAULT_INVENTORY
from cluster.command import if_inventory
from cluster.config import inventory
from loadtests.proof import copy
from loadtests.proof.audit import audit
from loadtests.proof.proof import verdict_of
from loadtests.report import report
from loadtests.run import chosen
from loadtests.run.exit_codes import EXIT_CODES
from loadtests.run.result import Check


@click.command()
@if_inventory
@click.option("--run", "name", help="Run id or directory; default: the cluster's newest.")
@click.option("--taken-at", hidden=True, help="When a copy of its cluster was taken (ISO 8601).")
@click.option("--copy", "addresses", hidden=True, help="Where that copy answers, if it does yet.")
def main(file: str | None, name: str | None, taken_at: str | None, addresses: str | None) -> int:
    """Prove a run's ledger, transfer by transfer.

    Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown (something could not be read).
    """
    if taken_at is not None:  # backup-verify has started this
        at = datetime.fromisoformat(taken_at)
        return _of_copy(file or DEFAULT_INVENTORY, name or "", at, addresses)
    run = chosen.run(name, file)
    done = audit(run, inventory=file)
    _show(done.checks)
    print(
        f"audit {done.verdict}: {done.cluster}: {done.transfers_checked:,} transfers and "
        f"{done.accounts_checked:,} accounts in {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB"
    )
    print(f"report: {report.write(run)}")
    return EXIT_CODES[done.verdict]


def _of_copy(file: str, name: str, taken_at: datetime, addresses: str | None) -> int:
    """Prove what the run knew when the copy was taken; without addresses, say how much that is."""
    run, deployment = chosen.of_either_kind(name, file), inventory.read(file)
    known = copy.known(run, taken_at, is_one_clock=deployment.runtime == "process")
    if not addresses:
        print(f"run {run.name}: {known.count:,} transfers were answered before {taken_at:%FT%TZ}")
        return 0
    checks = copy.prove(known, deployment.cluster.id, addresses)
    _show(checks)
    verdict = verdict_of(checks)
    wrong = "; ".join(f"{each.name}: {each.detail}" for each in checks if each.verdict == verdict)
    print(f"run {run.name}: {verdict if verdict == 'passed' else wrong}")
    return EXIT_CODES[verdict]


def _show(checks: list[Check]) -> None:
    for check in checks:
        print(f"  {check.verdict:8} {check.name}: {check.detail}")
