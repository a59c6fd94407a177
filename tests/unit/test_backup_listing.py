"""The list of backups, as a person pastes a name from it."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cluster.operate.backup import listing
from cluster.operate.backup.sets import Manifest
from cluster.tigerbeetle.totals import LedgerTotals, Totals

NAME = "20261129T124608Z"
BEFORE = Totals(
    ledgers={
        700: LedgerTotals(
            accounts=10,
            debits_posted=10**6,
            credits_posted=10**6,
            debits_pending=0,
            credits_pending=0,
            last_transfer_id="123456",
            last_transfer_ns=1,
        )
    }
)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_name_is_never_cut_however_narrow_the_terminal(columns: int) -> None:
    manifest = Manifest(
        name=NAME,
        deployment="production",
        engine="tigerbeetle",
        cluster_id=str(2**100),
        replica_count=3,
        release="0.17.9",
        taken_at=datetime(2026, 11, 29, tzinfo=UTC),
        stopped_s=None,
        before=BEFORE,
        after=None,
        files=[],
    )
    said = io.StringIO()
    found = {NAME: (listing.GONE, manifest)}
    Console(file=said, width=columns).print(listing.table_of(found))
    assert NAME in said.getvalue()
