"""The totals of each ledger: its accounts, its sums, and its newest transfer.

Read through the official client, which has no time-outs and aborts its process on a protocol
error; so it runs in a process of its own:
``python -m cluster.tigerbeetle.totals ADDRESSES CLUSTER_ID``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from cluster.config.deployment import Deployment
from cluster.tigerbeetle import canary

#: What the server takes in one query (0.17.9).
_BATCH = 8189
#: 122 queries read a million accounts within seconds. Ten minutes are enough for any ledger.
TIMEOUT_S = 600.0


class LedgerTotals(BaseModel, frozen=True, extra="forbid"):
    """One ledger. Posted sums never fall; pending ones do, when a hold ends."""

    accounts: int = 0
    debits_posted: int = 0
    credits_posted: int = 0
    debits_pending: int = 0
    credits_pending: int = 0
    last_transfer_id: str = Field(default="", description="decimal; empty when there is none")
    last_transfer_ns: int = Field(default=0, description="its timestamp, ns since 1970; 0 for none")


class Totals(BaseModel, frozen=True, extra="forbid"):
    """All ledgers but the canary's, by number."""

    ledgers: dict[int, LedgerTotals] = Field(default_factory=dict)

    def __str__(self) -> str:
        accounts = sum(each.accounts for each in self.ledgers.values())
        posted = sum(each.debits_posted for each in self.ledgers.values())
        return f"{len(self.ledgers)} ledgers, {accounts:,} accounts, {posted:,} posted"


def unbalanced(totals: Totals) -> list[str]:
    """One line for each ledger in which a debit has no credit, or a credit no debit. Pure."""
    return [
        f"ledger {number}: expected debits = credits, found {each}"
        for number, each in totals.ledgers.items()
        if (each.debits_posted, each.debits_pending) != (each.credits_posted, each.credits_pending)
    ]


def newest_at(totals: Totals) -> datetime | None:
    """When the newest transfer of all ledgers was executed; None where there is none. Pure."""
    newest = max((each.last_transfer_ns for each in totals.ledgers.values()), default=0)
    return datetime.fromtimestamp(newest / 1e9, UTC) if newest else None


def outside(found: Totals, floor: Totals | None, ceiling: Totals | None) -> list[str]:
    """Where ``found`` lies below an earlier reading, or above a later one. Pure.

    Only numbers that never fall are compared. If the two readings are equal, there was no load
    between them, and ``found`` must be equal too. If they differ, the later one is no upper bound:
    a transfer in flight at the stop may be only in the stopped primary's log. A restore commits it,
    but the running cluster may drop it in a view change until its client sends it again.
    """
    if ceiling != floor:
        ceiling = None
    lines = []
    for number in sorted({*found.ledgers, *(floor.ledgers if floor else ())}):
        for field in ("accounts", "debits_posted", "credits_posted", "last_transfer_ns"):
            here = _value(found, number, field)
            least = _value(floor, number, field) if floor else here
            most = _value(ceiling, number, field) if ceiling else here
            if not least <= here <= most:
                expected = f"{least}" if ceiling else f"at least {least}"
                lines.append(f"ledger {number}: expected {field} {expected}, found {here}")
    return lines


def read(deployment: Deployment, timeout_s: float = TIMEOUT_S) -> Totals | None:
    """The totals now; None when they could not be read within ``timeout_s``."""
    module = [sys.executable, "-m", "cluster.tigerbeetle.totals"]
    command = [*module, deployment.client_addresses, str(deployment.cluster.id)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None
    return Totals.model_validate_json(done.stdout) if done.returncode == 0 else None


def _value(totals: Totals, number: int, field: str) -> int:
    value: int = getattr(totals.ledgers.get(number, LedgerTotals()), field)
    return value


def _accounts(client: Any, tb: Any) -> Iterator[Any]:
    """All accounts, in the order in which they were created."""
    after = 0
    while True:
        found = client.query_accounts(_filter(tb, timestamp_min=after + 1, limit=_BATCH))
        yield from found
        if len(found) < _BATCH:
            return
        after = found[-1].timestamp


def _filter(tb: Any, **chosen: Any) -> Any:
    anything = {each.name: 0 for each in fields(tb.QueryFilter)}
    return tb.QueryFilter(**(anything | {"flags": tb.QueryFilterFlags.NONE} | chosen))


def _read_all(addresses: str, cluster_id: int) -> Totals:
    import tigerbeetle as tb  # here: importing it starts nothing, but takes a while

    sums: dict[int, dict[str, Any]] = {}
    fields = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")
    with tb.ClientSync(cluster_id=cluster_id, replica_addresses=addresses) as client:
        for account in _accounts(client, tb):
            if account.ledger == canary.LEDGER:
                continue
            ledger = sums.setdefault(account.ledger, dict.fromkeys(("accounts", *fields), 0))
            ledger["accounts"] += 1
            for field in fields:
                ledger[field] += getattr(account, field)
        for number, ledger in sums.items():
            newest = _filter(tb, ledger=number, limit=1, flags=tb.QueryFilterFlags.REVERSED)
            for transfer in client.query_transfers(newest):
                ledger["last_transfer_id"] = str(transfer.id)
                ledger["last_transfer_ns"] = transfer.timestamp
    return Totals(ledgers={n: LedgerTotals(**ledger) for n, ledger in sums.items()})


if __name__ == "__main__":
    print(_read_all(sys.argv[1], int(sys.argv[2])).model_dump_json())
