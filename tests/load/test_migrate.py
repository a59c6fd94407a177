"""``make migrate``, the whole way: between two emulators."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import tigerbeetle as tb

import tigerbeetle_emulator
from cluster import REPOSITORY
from cluster import cli as commands
from cluster.operate.migrate import clusters, command, plan
from cluster.operate.migrate.clusters import Cluster, Place
from cluster.operate.migrate.passes import Move, Pass
from cluster.refusal import Refusal
from cluster.tigerbeetle import canary
from tigerbeetle_emulator.embedded import Emulator


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


def move(source: str, target: str, *more: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """As a person types it, who then says this."""
    program = [sys.executable, "-m", "cluster", "migrate", "--from", source, "--to", target, *more]
    return subprocess.run(
        program, cwd=REPOSITORY, capture_output=True, text=True, timeout=1000, input=said
    )


def called(source: str, target: str) -> int:
    """The same, in this process, with the services stopped: its exit code."""
    return commands.main(["migrate", "--from", source, "--to", target, "--stopped"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is under way here when a service stops."""
    monkeypatch.setattr(command, "SILENCE_S", 0.05)
    monkeypatch.setattr(clusters, "_CONNECT_TIMEOUT_S", 300.0)  # of a busy machine


class Clock:
    """The time that ``migrate`` and the old cluster see: sleeping lets it pass at once."""

    def __init__(self, made: Emulator) -> None:
        self.made, self.slept_s = made, 0.0

    def time_ns(self) -> int:
        return time.time_ns() + int(self.slept_s * 1e9)

    def time(self) -> float:
        return self.time_ns() / 1e9

    def monotonic(self) -> float:
        return time.monotonic() + self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.made.advance(timedelta(seconds=seconds))


@pytest.fixture
def clock(old: Emulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(old)
    monkeypatch.setattr(command, "time", made)
    return made


@pytest.fixture
def moving(old: Emulator, new: Emulator) -> Iterator[Move]:
    """A migration that the test goes through step by step."""
    source, target = (
        Cluster(name, Place(made.cluster_id, made.address))
        for name, made in (("FROM", old), ("TO", new))
    )
    yield Move(source, target)
    source.close()
    target.close()


class Said(command.Word):
    """What somebody says when he is asked; what happens before that is called."""

    def __init__(self, *before: Callable[[], object]) -> None:
        super().__init__("again")
        self.before = list(before)

    def is_given(self, wait_s: float) -> bool:
        if self.before:
            self.before.pop(0)()
            return False
        return True


def pay(made: Emulator, number: int, **fields: Any) -> None:
    """A client of a service that still runs."""
    ends = {"debit_account_id": 1, "credit_account_id": 2}
    given = ends | {"id": number, "amount": 1, "ledger": 1, "code": 1} | fields
    with tb.ClientSync(cluster_id=made.cluster_id, replica_addresses=made.address) as client:
        (result,) = client.create_transfers([tb.Transfer(**given)])
    assert result.status == tb.CreateTransferStatus.CREATED


def balances(made: Emulator) -> list[tuple[int, ...]]:
    """By the official client, object by object: another way than the code under test reads."""
    with tb.ClientSync(cluster_id=made.cluster_id, replica_addresses=made.address) as client:
        found = client.lookup_accounts([1, 2, 3, 4])
    return [
        (a.id, a.timestamp, a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
        for a in found
    ]


def test_three_become_six_with_every_balance_equal(old: Emulator, new: Emulator) -> None:
    done = move(place(old), place(new), said="really\nstopped\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "migration passed" in done.stdout
    assert "1 holds that ran out are left out" in done.stdout
    asked, _, rest = done.stdout.partition("; then type: stopped")
    assert "TO has caught up" in asked
    assert "expected stopped, found really: still copying" in rest
    assert re.search(r"downtime: [\d.]+ s since the word", rest)
    assert balances(new) == balances(old)
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        (closed,) = client.lookup_accounts([4])
        (linked, voided) = client.lookup_transfers([40, 54])
    assert closed.flags & tb.AccountFlags.CLOSED
    assert linked.flags & tb.TransferFlags.LINKED
    assert voided.pending_id == 53


def test_an_empty_ledger_is_equal_to_an_empty_one(new: Emulator) -> None:
    with tigerbeetle_emulator.run(cluster=1) as empty:
        assert called(place(empty), place(new)) == 0


def test_a_migration_may_be_repeated_and_imports_nothing_twice(
    old: Emulator, new: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(place(old), place(new)) == 0
    before = balances(new)
    capsys.readouterr()
    assert called(place(old), place(new)) == 0
    assert "0 transfers imported" in capsys.readouterr().out
    assert balances(new) == before


def test_an_interrupted_migration_goes_on_where_it_was(
    old: Emulator, new: Emulator, moving: Move
) -> None:
    (page,) = moving.source.accounts()
    moving.target.create_accounts(plan.importable(page, page["id"][:, 0] == 0))
    (rows,) = moving.source.transfers(0, 0)
    moving.target.create_transfers(plan.imported(rows[:11], rows["id"][:11, 0] == 0))
    assert called(place(old), place(new)) == 0
    assert balances(new) == balances(old)


def test_an_interrupted_migration_proves_what_it_finds_there(
    old: Emulator, new: Emulator, moving: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = moving.source.accounts()
    moving.target.create_accounts(plan.importable(page, page["id"][:, 0] == 0))
    (rows,) = moving.source.transfers(0, 0)
    forged = plan.imported(rows[:11], rows["id"][:11, 0] == 0)
    forged["amount"][3, 0] += 1
    moving.target.create_transfers(forged)
    assert called(place(old), place(new)) == 1
    said = capsys.readouterr().out
    assert f"transfers: amount differs in 1 rows, first at id {rows['id'][3, 0]}" in said
    assert "migration FAILED: do not use the new cluster" in said


def test_without_anybody_to_say_that_services_are_stopped_nothing_is_proven(
    old: Emulator, new: Emulator
) -> None:
    done = move(place(old), place(new))
    assert done.returncode == 1
    assert "passed" not in done.stdout
    assert done.stderr.splitlines()[-1].endswith(
        f"make migrate FROM={place(old)} TO={place(new)} STOPPED=yes"
    )
    assert called(place(old), place(new)) == 0  # what was copied stays
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


def test_what_a_serving_cluster_takes_meanwhile_is_caught_up(
    old: Emulator, new: Emulator, moving: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_an_account() -> None:
        with tb.ClientSync(cluster_id=1, replica_addresses=old.address) as client:
            client.create_accounts([tb.Account(id=5, ledger=1, code=1)])
        pay(old, 998, debit_account_id=5)
        kind = tb.TransferFlags
        pay(old, 999, debit_account_id=5, flags=kind.PENDING | kind.CLOSING_DEBIT)

    word = Said(lambda: pay(old, 997), open_an_account, lambda: None)
    assert command.migrate(moving, word) == []
    assert balances(new) == balances(old)
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        assert {t.id for t in client.lookup_transfers([997, 998])} == {997, 998}
        (opened,) = client.lookup_accounts([5])
    assert opened.debits_posted == 1
    assert opened.flags & tb.AccountFlags.CLOSED
    assert capsys.readouterr().out.count("then type: stopped") == 1


def test_a_hold_that_is_decided_while_the_cluster_serves_holds_up_only_what_follows(
    old: Emulator, new: Emulator, moving: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied is what comes before it, in each pass; posted, it comes with all that waited."""
    pay(old, 900, flags=tb.TransferFlags.PENDING, timeout=3600)
    pay(old, 901)
    seen: list[list[int]] = []

    def look() -> None:
        with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
            seen.append(sorted(t.id for t in client.lookup_transfers([54, 900, 901, 902])))

    def post() -> None:
        look()
        pay(old, 902, flags=tb.TransferFlags.POST_PENDING_TRANSFER, pending_id=900)

    assert command.migrate(moving, Said(lambda: None, post, lambda: None, look)) == []
    assert seen == [[54], [54, 900, 901, 902]]
    assert balances(new) == balances(old)
    said = capsys.readouterr().out
    assert re.search(r"\d holds may still run out, the last one in 3,\d{3} s, and \d transf", said)


def test_a_hold_that_runs_out_after_the_stop_is_waited_for_and_left_out(
    old: Emulator, new: Emulator, moving: Move, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    pay(old, 900, flags=tb.TransferFlags.PENDING, timeout=50)
    assert command.migrate(moving, None) == []
    assert "holds may still run out: waiting until none can" in capsys.readouterr().out
    assert 40 < clock.slept_s < 60
    assert moving.left_out == 2
    assert balances(new) == balances(old)


def test_a_hold_that_runs_out_later_than_the_bound_is_refused_at_once_with_the_time(
    old: Emulator, moving: Move, clock: Clock
) -> None:
    pay(old, 900, flags=tb.TransferFlags.PENDING, timeout=3600)
    with pytest.raises(Refusal, match=r"found [12]\. Fix: post .*, or try again in 3,\d{3} s"):
        command.migrate(moving, None)
    assert clock.slept_s == 0


def test_holds_that_never_end_to_come_are_refused_within_the_bound(
    old: Emulator, moving: Move, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, settled = itertools.count(900), moving.catch_up

    def catch_up(now_ns: int | None = None) -> Pass:
        pay(old, next(numbers), flags=tb.TransferFlags.PENDING, timeout=20)
        return settled(now_ns)

    monkeypatch.setattr(moving, "catch_up", catch_up)
    with pytest.raises(Refusal, match="try again in"):
        command.migrate(moving, None)
    assert 0 < clock.slept_s <= command.HOLDS_WAIT_S


def while_it_proves(
    moving: Move, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]
) -> None:
    prove = moving.prove

    def prove_then() -> list[str]:
        found = prove()
        then()
        return found

    monkeypatch.setattr(moving, "prove", prove_then)


def test_what_was_under_way_when_the_word_was_given_is_taken_along(
    old: Emulator, new: Emulator, moving: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [lambda: pay(old, 999)]
    while_it_proves(moving, monkeypatch, lambda: late and late.pop()())
    assert command.migrate(moving, None) == []
    assert balances(new) == balances(old)


def test_a_service_that_was_not_stopped_fails_the_migration(
    old: Emulator, moving: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count(1000)
    while_it_proves(moving, monkeypatch, lambda: pay(old, next(numbers)))
    problems = command.migrate(moving, None)
    assert next(numbers) == 1003
    assert "stop the services in front of it, then repeat" in problems[-1]


def test_a_transfer_in_the_new_cluster_that_the_old_one_never_had_fails_the_migration(
    new: Emulator, moving: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = command._settle

    def settle_then_pay(move: Move) -> list[str]:
        found = settle(move)
        pay(new, 999)
        return found

    monkeypatch.setattr(command, "_settle", settle_then_pay)
    problems = command.migrate(moving, None)
    assert any("TO has some that were not compared" in problem for problem in problems)


def test_a_service_that_pays_until_the_word_finds_every_payment_in_the_new_cluster(
    old: Emulator, new: Emulator
) -> None:
    """The program as a person runs it, beside a service that is stopped when it says so."""
    acknowledged: list[int] = []
    asked = threading.Event()

    def serve() -> None:
        with tb.ClientSync(cluster_id=1, replica_addresses=old.address) as client:
            for number in itertools.count(10_000):
                ends = {"debit_account_id": 1, "credit_account_id": 3}
                paid = tb.Transfer(**ends, id=number, amount=1, ledger=1, code=1)
                (result,) = client.create_transfers([paid])
                assert result.status == tb.CreateTransferStatus.CREATED
                acknowledged.append(number)
                if asked.wait(0.01):
                    return

    program = [sys.executable, "-u", "-m", "cluster", "migrate"]
    program += ["--from", place(old), "--to", place(new)]
    service = threading.Thread(target=serve)
    service.start()
    with subprocess.Popen(
        program, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        before = next(line for line in process.stdout if "then type: stopped" in line)
        asked.set()
        service.join()
        said, _ = process.communicate("stopped\n", timeout=1000)
    assert process.returncode == 0, said
    assert before.startswith(f"stop the services in front of FROM (cluster 1 at {old.address})")
    with tb.ClientSync(cluster_id=2, replica_addresses=new.address) as client:
        found = [t.id for t in client.lookup_transfers(acknowledged)]
    assert found == acknowledged
    assert balances(new) == balances(old)


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
