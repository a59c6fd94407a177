"""``make audit``: prove a run's ledger, transfer by transfer, and write its report again."""

from __future__ import annotations

import click

from loadtests.proof.audit import audit
from loadtests.report import report
from loadtests.run import runs
from loadtests.run.exit_codes import EXIT_CODES


@click.command()
@click.option("--run", "name", help="Run id or directory; default: the newest.")
def main(name: str | None) -> int:
    """Prove a run's ledger, transfer by transfer.

    Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown (something could not be read).
    """
    run = runs.find(name)
    done = audit(run)
    for check in done.checks:
        print(f"  {check.verdict:8} {check.name}: {check.detail}")
    print(
        f"audit {done.verdict}: {done.transfers_checked:,} transfers and {done.accounts_checked:,} "
        f"accounts in {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB"
    )
    print(f"report: {report.write(run)}")
    return EXIT_CODES[done.verdict]
