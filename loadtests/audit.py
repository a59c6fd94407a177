"""``make audit``: prove a run's ledger, transfer by transfer, and write its report again."""

from __future__ import annotations

import click

from cluster.command import if_inventory
from loadtests.proof.audit import audit
from loadtests.report import report
from loadtests.run import chosen
from loadtests.run.exit_codes import EXIT_CODES


@click.command()
@if_inventory
@click.option("--run", "name", help="Run id or directory; default: the cluster's newest.")
def main(file: str | None, name: str | None) -> int:
    """Prove a run's ledger, transfer by transfer.

    Exit codes: 0 passed, 1 failed, 2 wrong usage, 4 unknown (something could not be read).
    """
    run = chosen.run(name, file)
    done = audit(run, inventory=file)
    for check in done.checks:
        print(f"  {check.verdict:8} {check.name}: {check.detail}")
    print(
        f"audit {done.verdict}: {done.cluster}: {done.transfers_checked:,} transfers and "
        f"{done.accounts_checked:,} accounts in {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB"
    )
    print(f"report: {report.write(run)}")
    return EXIT_CODES[done.verdict]
