"""A ledger moved into a new cluster: the plan row by row, and the whole way between two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tigerbeetle as tb
from hypothesis import given
from hypothesis import strategies as st

import tigerbeetle_emulator
from cluster import REPOSITORY
from cluster.operate import migrate, migration
from cluster.operate.migration import batches, differences, plan
from cluster.refusal import Refusal
from cluster.tigerbeetle import canary
from loadtests.client.records import ACCOUNT, LINKED, PENDING, POST, TRANSFER, Array
from tigerbeetle_emulator.embedded import Emulator

SECOND = 10**9
NOW = 10**6 * SECOND
IMPORTED = int(tb.TransferFlags.IMPORTED)


def accounts(count: int = 2, **fields: int) -> Array:
    rows = np.zeros(count, ACCOUNT)
    rows["id"][:, 0] = rows["timestamp"] = np.arange(1, count + 1)
    rows["ledger"] = rows["code"] = 1
    for name, value in fields.items():
        rows[name] = value
    return rows


def transfers(*rows: dict[str, int]) -> Array:
    """Transfers from account 1 to 2, ids 1, 2, ...; what a dict says is different."""
    made = np.zeros(len(rows), TRANSFER)
    for index, row in enumerate(rows):
        given = {"id": index + 1, "debit_account_id": 1, "credit_account_id": 2, "amount": 5}
        given |= {"ledger": 1, "code": 1, "timestamp": (100 + index) * SECOND} | row
        for name, value in given.items():
            made[name][index] = (value, 0) if made.dtype[name].shape else value
    return made


def test_accounts_are_created_without_balances_and_transfers_as_they_were() -> None:
    old = accounts(debits_posted=5, flags=2)
    planned = plan(old, transfers({}, {}), NOW)
    assert planned.accounts["debits_posted"].sum() == 0
    assert set(planned.accounts["flags"]) == {2 | migration.ACCOUNT_IMPORTED}
    assert list(planned.transfers["timestamp"]) == [100 * SECOND, 101 * SECOND]
    assert set(planned.transfers["flags"]) == {IMPORTED}
    assert old["debits_posted"].any()  # the source's own rows are what the proof compares with


def test_a_hold_that_was_posted_keeps_its_place_without_its_time_limit() -> None:
    held = {"flags": PENDING, "timeout": 60}
    planned = plan(accounts(), transfers(held, {"flags": POST, "pending_id": 1}), NOW)
    assert planned.left_out == 0
    assert list(planned.transfers["timeout"]) == [0, 0]


def test_a_hold_that_ran_out_is_left_out_and_counted() -> None:
    planned = plan(accounts(), transfers({}, {"flags": PENDING, "timeout": 60}, {}), NOW)
    assert planned.left_out == 1
    assert list(planned.transfers["id"][:, 0]) == [1, 3]


def test_a_hold_without_a_time_limit_goes_on() -> None:
    planned = plan(accounts(), transfers({"flags": PENDING}), NOW)
    assert (planned.left_out, len(planned.transfers)) == (0, 1)


@pytest.mark.parametrize("timeout", [100, 10**6])
def test_a_hold_that_may_still_run_out_is_refused(timeout: int) -> None:
    alive = transfers({"flags": PENDING, "timeout": timeout})
    with pytest.raises(Refusal, match=r"found 1\. Fix: post or void them, or try again in"):
        plan(accounts(), alive, 190 * SECOND)


def test_a_chain_whose_end_ran_out_ends_before_it() -> None:
    linked, held = {"flags": LINKED}, {"flags": PENDING, "timeout": 1}
    planned = plan(accounts(), transfers(linked, linked, held, {}), NOW)
    assert list(planned.transfers["flags"] & LINKED) == [LINKED, 0, 0]


def test_an_account_closed_by_a_transfer_is_created_open() -> None:
    closing = int(tb.TransferFlags.CLOSING_DEBIT) | PENDING
    both = accounts(flags=migration.ACCOUNT_CLOSED)
    both["flags"][1] = 0
    planned = plan(both, transfers({"flags": closing}), NOW)
    assert list(planned.accounts["flags"] & migration.ACCOUNT_CLOSED) == [0, 0]
    without = plan(both, transfers(), NOW)
    assert list(without.accounts["flags"] & migration.ACCOUNT_CLOSED) == [32, 0]


def test_rows_out_of_order_are_refused() -> None:
    with pytest.raises(Refusal, match="in order of timestamp"):
        plan(accounts(), transfers({"timestamp": 7}, {"timestamp": 6}), NOW)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
def test_batches_hold_every_row_once_and_cut_no_chain(linked: list[bool], size: int) -> None:
    rows = transfers(*({"flags": LINKED if is_linked else 0} for is_linked in linked))
    if len(rows):
        rows["flags"][-1] = 0
    try:
        parts = list(batches(rows, size))
    except Refusal:
        longest = max(map(len, "".join("01"[not f] for f in rows["flags"]).split("1"))) + 1
        assert longest > size
        return
    assert sum(map(len, parts)) == len(rows)
    assert all(0 < len(part) <= size and not part["flags"][-1] & LINKED for part in parts)


@pytest.mark.parametrize("field", list(TRANSFER.names or ()))
def test_a_difference_in_any_field_is_found(field: str) -> None:
    expected = transfers({}, {}, {})
    found = expected.copy()
    assert differences(expected, found, "transfers") == []
    found[field][1] = 9
    (said,) = differences(expected, found, "transfers")
    assert said.startswith(f"transfers: {field} differs in 1 rows, first at id 2")


def test_a_missing_row_is_a_difference() -> None:
    assert differences(transfers({}, {}), transfers({}), "t") == ["t: expected 2, found 1"]


# -- the whole way, between two emulators ---------------------------------------------------------


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
        until = time.monotonic() + 20
        while client.lookup_accounts([1])[0].debits_pending > 20:  # until the hold has run out
            assert time.monotonic() < until
            time.sleep(0.2)


def place(made: Emulator) -> str:
    return f"{made.cluster_id}@{made.address}"


def move(source: str, target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster", "migrate", "--from", source, "--to", target],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=100,
    )


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
    old: Emulator, new: Emulator
) -> None:
    assert move(place(old), place(new)).returncode == 0
    before = balances(new)
    again = move(place(old), place(new))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 transfers imported" in again.stdout
    assert balances(new) == before


def test_an_interrupted_migration_goes_on_where_it_was(old: Emulator, new: Emulator) -> None:
    source, target = (migrate.Cluster("x", e.cluster_id, e.address) for e in (old, new))
    planned = plan(source.accounts(), source.transfers(), time.time_ns() + 60 * SECOND)
    half = replace(planned, transfers=planned.transfers[:11])
    assert migrate.fill(half, target) == 11
    source.close()
    target.close()
    done = move(place(old), place(new))
    assert done.returncode == 0, done.stdout + done.stderr
    assert balances(new) == balances(old)


def test_a_cluster_that_has_accounts_of_its_own_is_refused(old: Emulator, new: Emulator) -> None:
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        client.create_accounts([tb.Account(id=99, ledger=1, code=1)])
    done = move(place(old), place(new))
    assert done.returncode == 1
    assert (
        "expected a cluster that never had an account, found 1 accounts of its own" in done.stderr
    )
    assert balances(new) == []


def test_a_cluster_that_moves_on_meanwhile_fails_the_migration(
    old: Emulator, new: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (migrate.Cluster("x", e.cluster_id, e.address) for e in (old, new))
    fill = migrate.fill

    def fill_while_a_client_pays(planned: migration.Plan, to: migrate.Cluster) -> int:
        with tb.ClientSync(cluster_id=1, replica_addresses=old.address) as client:
            late = tb.Transfer(
                id=999, debit_account_id=1, credit_account_id=2, amount=1, ledger=1, code=1
            )
            client.create_transfers([late])
        return fill(planned, to)

    monkeypatch.setattr(migrate, "fill", fill_while_a_client_pays)
    monkeypatch.setattr(migration, "CLOCK_MARGIN_NS", 0)
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
    ],
)
def test_what_names_no_two_clusters_is_refused(source: str, target: str, message: str) -> None:
    done = move(source, target)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_read_only_canary_leaves_a_new_cluster_empty(
    new: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "read")
    asked = canary.probe(new.address, 2, 20)
    assert asked.commits, asked.detail
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        assert client.lookup_accounts([canary.ACCOUNT_DEBIT]) == []
