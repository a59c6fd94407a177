"""docs/runbooks/scale.md: three genuine replicas become six, and the ledger is the same."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import psutil
import pytest
import tigerbeetle as tb

from cluster import config
from tests.clusters import Sandbox, sandbox

pytestmark = [pytest.mark.genuine]

ACCOUNTS, BATCH, BATCHES = 200, 8000, 13
LEDGER = 700


@pytest.fixture
def memory() -> None:
    """Nine replicas with the smallest cache that the tests use take their memory at once."""
    if os.environ.get("MIGRATE_DRILL") != "yes":
        pytest.skip("nine replicas take the whole machine: make migrate-drill")
    needed = 9 * (config.memory_bytes(config.load()) - config.size_bytes("448MiB"))
    if psutil.virtual_memory().available < needed:
        pytest.skip(f"nine replicas take {needed / 1024**3:.0f} GiB of memory: stop what takes it")


def client_of(made: Sandbox) -> Any:
    cluster = made.deployment.cluster
    return tb.ClientSync(cluster_id=cluster.id, replica_addresses=cluster.addresses)


def furnish(made: Sandbox) -> None:
    """More than 100,000 transfers: payments, linked pairs, and holds that are posted or voided."""
    kind = tb.TransferFlags
    with client_of(made) as client:
        client.create_accounts(
            [tb.Account(id=i, ledger=LEDGER, code=1) for i in range(1, ACCOUNTS + 1)]
        )
        for batch in range(BATCHES):
            first = 1 + batch * BATCH
            rows: list[Any] = []
            for number in range(first, first + BATCH):
                row = tb.Transfer(
                    id=number,
                    debit_account_id=1 + number % ACCOUNTS,
                    amount=1 + number % 97,
                    credit_account_id=1 + (number * 7 + 3) % ACCOUNTS,
                    ledger=LEDGER,
                    code=1,
                )
                if row.debit_account_id == row.credit_account_id:
                    row.credit_account_id = 1 + row.credit_account_id % ACCOUNTS
                if number % 10 == 0 and number < first + BATCH - 1:
                    row.flags, row.timeout = kind.PENDING, 3600
                elif number % 10 == 1 and number > first:
                    ended = rows[-1]
                    row = tb.Transfer(
                        id=number,
                        pending_id=ended.id,
                        amount=ended.amount,
                        flags=kind.POST_PENDING_TRANSFER
                        if number % 20 == 1
                        else kind.VOID_PENDING_TRANSFER,
                    )
                elif number % 10 in (5, 6):
                    row.flags = kind.LINKED
                rows.append(row)
            done = client.create_transfers(rows)
            refused = {r.status.name for r in done if r.status != tb.CreateTransferStatus.CREATED}
            assert not refused, refused


def books(made: Sandbox) -> list[tuple[int, ...]]:
    """Every account's balances, object by object: another way than the code under test reads."""
    with client_of(made) as client:
        found = client.lookup_accounts(list(range(1, ACCOUNTS + 1)))
    return [
        (a.id, a.timestamp, a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
        for a in found
    ]


@pytest.mark.usefixtures("memory")
def test_three_become_six_and_every_balance_is_the_same() -> None:
    with (
        sandbox("inventories/process.py") as old,
        sandbox(
            "inventories/process.py", 6, LU_CFG_TIGERBEETLE_CLUSTER_ID="6", CANARY="read"
        ) as new,
    ):
        for made in (old, new):
            done = made.up()
            assert done.returncode == 0, done.stderr[-4000:]
        furnish(old)
        places = [
            f"{made.deployment.cluster.id}@{made.deployment.cluster.addresses}"
            for made in (old, new)
        ]
        begun = time.monotonic()
        moved = old.run("make", "migrate", f"FROM={places[0]}", f"TO={places[1]}", "STOPPED=yes")
        print(moved.stdout, f"all of it: {time.monotonic() - begun:.1f} s")
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert "migration passed" in moved.stdout
        (count,) = re.findall(r"([\d,]+) transfers imported in", moved.stdout)
        assert int(count.replace(",", "")) >= 100_000
        assert books(new) == books(old)
        del new.overrides["CANARY"]
        assert new.call("status").returncode == 0
