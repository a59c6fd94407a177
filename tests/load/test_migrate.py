"""``make migrate``, the whole way: between two emulators."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import tigerbeetle as tb

import tigerbeetle_emulator
from cluster import REPOSITORY
from cluster import cli as commands
from cluster.operate import migrate, migration
from cluster.operate.migrate import Place
from cluster.operate.migration import plan
from cluster.tigerbeetle import canary
from tigerbeetle_emulator.embedded import Emulator

SECOND = 10**9


@pytest.fixture
def old() -> Iterator[Emulator]:
    """A cluster of three with a ledger of every kind of transfer."""
    with tigerbeetle_emulator.run(cluster=1, replicas=3) as made:
        furnish(made.cluster_id, made.address)
        yield made


@pytest.fixture
def new() -> Iterator[Emulator]:
    """An empty cluster of six."""
    with tigerbeetle_emulator.run(cluster=2, replicas=6) as made:
        yield made


def furnish(cluster_id: int, addresses: str) -> None:
    """Accounts with limits and history; plain, linked, held, posted, voided, run-out, closing."""
    flag, kind = tb.AccountFlags, tb.TransferFlags

    def transfer(number: int, **fields: Any) -> Any:
        ends = {"debit_account_id": 1, "credit_account_id": 2}
        return tb.Transfer(**ends | {"id": number, "amount": 10, "ledger": 1, "code": 1} | fields)

    with tb.ClientSync(cluster_id=cluster_id, replica_addresses=addresses) as client:
        kinds = [0, flag.DEBITS_MUST_NOT_EXCEED_CREDITS, flag.HISTORY, 0]
        made = [tb.Account(id=i + 1, ledger=1, code=1, flags=f) for i, f in enumerate(kinds)]
        client.create_accounts(made)
        done = client.create_transfers(
            [
                *[transfer(10 + i) for i in range(20)],
                transfer(40, flags=kind.LINKED),
                transfer(41, flags=kind.LINKED, debit_account_id=2, credit_account_id=3),
                transfer(42, debit_account_id=3, credit_account_id=1),
                transfer(50, flags=kind.PENDING),
                transfer(51, flags=kind.PENDING, timeout=3600),
                transfer(52, flags=kind.POST_PENDING_TRANSFER, pending_id=51, amount=4),
                transfer(53, flags=kind.PENDING, timeout=3600),
                transfer(54, flags=kind.VOID_PENDING_TRANSFER, pending_id=53, amount=0),
                transfer(
                    55,
                    flags=kind.BALANCING_DEBIT,
                    debit_account_id=2,
                    credit_account_id=3,
                    amount=10**9,
                ),
                transfer(56, flags=kind.PENDING, timeout=1),
                transfer(57, flags=kind.PENDING | kind.CLOSING_CREDIT, credit_account_id=4),
            ]
        )
        assert {result.status for result in done} == {tb.CreateTransferStatus.CREATED}


def place(made: Emulator) -> str:
    return f"{made.cluster_id}@{made.address}"


def move(source: str, target: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", "migrate", "--from", source, "--to", target]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1000, check=False
    )


def called(source: str, target: str) -> int:
    """The same, in this process: its exit code."""
    return commands.main(["migrate", "--from", source, "--to", target])


def balances(made: Emulator) -> list[tuple[int, ...]]:
    """By the official client, object by object: another way than the code under test reads."""
    with tb.ClientSync(cluster_id=made.cluster_id, replica_addresses=made.address) as client:
        found = client.lookup_accounts([1, 2, 3, 4])
    return [
        (a.id, a.timestamp, a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
        for a in found
    ]


def test_three_become_six_with_every_balance_equal(old: Emulator, new: Emulator) -> None:
    done = move(place(old), place(new))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "migration passed" in done.stdout
    assert "1 holds that ran out are left out" in done.stdout
    assert balances(new) == balances(old)
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        (closed,) = client.lookup_accounts([4])
        (linked, voided) = client.lookup_transfers([40, 54])
    assert closed.flags & tb.AccountFlags.CLOSED
    assert linked.flags & tb.TransferFlags.LINKED
    assert voided.pending_id == 53


def test_a_migration_may_be_repeated_and_imports_nothing_twice(
    old: Emulator, new: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(place(old), place(new)) == 0
    before = balances(new)
    capsys.readouterr()
    assert called(place(old), place(new)) == 0
    assert "0 transfers imported" in capsys.readouterr().out
    assert balances(new) == before


def test_an_interrupted_migration_goes_on_where_it_was(old: Emulator, new: Emulator) -> None:
    source, target = (migrate.Cluster("x", Place(e.cluster_id, e.address)) for e in (old, new))
    planned = plan(source.accounts(), source.transfers(), time.time_ns() + 60 * SECOND)
    half = replace(planned, transfers=planned.transfers[:11])
    assert migrate.fill(half, target) == 11
    source.close()
    target.close()
    assert called(place(old), place(new)) == 0
    assert balances(new) == balances(old)


def test_a_cluster_that_has_accounts_of_its_own_is_refused(
    old: Emulator, new: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        client.create_accounts([tb.Account(id=99, ledger=1, code=1)])
    assert called(place(old), place(new)) == 1
    said = "expected a cluster that never had an account, found 1 accounts of its own"
    assert said in capsys.readouterr().err
    assert balances(new) == []


def test_a_cluster_that_moves_on_meanwhile_fails_the_migration(
    old: Emulator, new: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (migrate.Cluster("x", Place(e.cluster_id, e.address)) for e in (old, new))
    fill = migrate.fill

    def fill_while_a_client_pays(planned: migration.Plan, to: migrate.Cluster) -> int:
        with tb.ClientSync(cluster_id=1, replica_addresses=old.address) as client:
            late = tb.Transfer(
                id=999, debit_account_id=1, credit_account_id=2, amount=1, ledger=1, code=1
            )
            client.create_transfers([late])
        return fill(planned, to)

    monkeypatch.setattr(migrate, "fill", fill_while_a_client_pays)
    problems = migrate.migrate(source, target)
    source.close()
    target.close()
    assert any("accounts: debits_posted differs in 1 rows" in problem for problem in problems)
    assert "stop the services in front of it" in problems[-1]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("", "2@127.0.0.1:1", "FROM: expected an inventory"),
        ("x@127.0.0.1:1", "2@127.0.0.1:1", "FROM: expected an inventory"),
        ("1@127.0.0.1:1", "inventories/none.py", "INVENTORY: expected"),
        ("1@127.0.0.1:1", "1@127.0.0.1:1", "expected another cluster than FROM"),
        ("1@127.0.0.1:2,127.0.0.1:1", "1@127.0.0.1:1", "expected another cluster than FROM"),
        ("inventories/process.py", "inventories/emulator.py", "expected another cluster than FROM"),
    ],
)
def test_what_names_no_two_clusters_is_refused(
    source: str, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(source, target) == 2
    assert message in capsys.readouterr().err


def test_a_read_only_canary_leaves_a_new_cluster_empty(
    new: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "read")
    asked = canary.probe(new.address, 2, 20)
    assert asked.commits, asked.detail
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        assert client.lookup_accounts([canary.ACCOUNT_DEBIT]) == []
