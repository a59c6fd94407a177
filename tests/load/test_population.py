"""Runs that share their wallets: found before any load, one after the other, each proven alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import gevent
import numpy as np
import pytest
import tigerbeetle as tb

from cluster.refusal import Refusal
from loadtests.client.records import ACCOUNT, join
from loadtests.proof.audit import audit
from loadtests.run import runs
from loadtests.run.result import Audit, Target, read_audit, read_result
from loadtests.run.target import by_hand
from loadtests.traffic import population
from loadtests.wallet.session import Plan, Session
from tests.load.conftest import CLUSTER_ID, Program, Server
from tests.load.samples import manifest, result

BOUND_S = 60.0


def target_of(server: Server) -> Target:
    return by_hand(str(CLUSTER_ID), server.address, "emulator")


@dataclass(frozen=True)
class Played:
    """A run that is over."""

    path: Path
    tag: int
    begun: float


def play(server: Server, folder: Path, begun: float, of: Played | None = None) -> Played:
    """A short run, of one worker in this process; ``of``: with the wallets of another."""
    tag = runs.new_tag()
    run = folder / runs.name_of(tag)
    run.mkdir(parents=True)
    written = manifest(wallets=10, population=of.path.name if of else "").model_copy(
        update={"run": run.name, "tag": str(tag), "started": begun, "target": target_of(server)}
    )
    runs.write_json(run / "run.json", written.model_dump_json())
    if of:
        with (of.path / population.TAKEN_BY).open("a") as file:
            file.write(f"{run.name}\n")
    plan = Plan(
        run=run,
        tag=tag,
        worker=0,
        cluster_id=CLUSTER_ID,
        addresses=server.address,
        wallets=10,
        skew=0.5,
        seed=tag & 0xFFFF,
        deadline_s=BOUND_S,
        batch_max=500,
        open_loop=False,
        arrival_process="poisson",
        population=of.tag if of else tag,
    )
    session = Session(plan, on_second=lambda _second: None, users=lambda: 1)
    bank = session.bank
    for act in (bank.pay, bank.deposit, bank.withdraw, bank.exchange, bank.hold_and_capture):
        gevent.joinall([gevent.spawn(act, perf_counter()) for _ in range(5)], timeout=BOUND_S)
    bank.hold_and_forget(perf_counter())
    bank.settle(perf_counter())
    done = session.finish()
    ended = result().model_copy(
        update={"manifest": written, "transfers_sent": done["sent"], "workers": 1}
    )
    runs.write_json(run / "result.json", ended.model_dump_json())
    return Played(run, tag, begun)


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A run to be copied."""
    return play(server, tmp_path_factory.mktemp("whole"), 1.0)


def wrong(found: Audit) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.verdict != "passed"}


def test_every_run_of_one_population_is_proven_also_after_the_next(
    server: Server, tmp_path: Path
) -> None:
    first = play(server, tmp_path, 1.0)
    second = play(server, tmp_path, 2.0, first)
    third = play(server, tmp_path, 3.0, first)
    for run in (first, second, third):
        found = audit(run.path)
        assert found.verdict == "passed", wrong(found)
        assert found.accounts_checked == 4 * (3 + 10)
    (lines,) = runs.records_of(second.path)
    of_second = lines[:]["sent"]
    assert set(of_second["user_data_64"].tolist()) == {second.tag}
    assert set(of_second["debit_account_id"][:, 1].tolist()) == {first.tag}
    assert not np.isin(of_second["id"][:, 1], [first.tag]).any()


def test_money_that_moves_between_two_runs_convicts_the_first_and_that_after_them_the_last(
    server: Server, tmp_path: Path
) -> None:
    first = play(server, tmp_path, 1.0)
    steal(server, first)
    second = play(server, tmp_path, 2.0, first)
    assert set(wrong(audit(first.path))) == {"balances"}
    assert audit(second.path).verdict == "passed"
    steal(server, first)
    assert set(wrong(audit(first.path))) == {"balances"}
    assert set(wrong(audit(second.path))) == {"balances"}


def steal(server: Server, run: Played) -> None:
    """One unit, by another program: from funding to the first wallet."""
    (rows,) = runs.accounts_of(run.path)
    accounts = rows[:]
    euros = accounts[accounts["ledger"] == 978]
    event = tb.Transfer(
        id=tb.id(),
        debit_account_id=join(euros["id"][0]),
        credit_account_id=join(euros["id"][-1]),
        amount=1,
        ledger=978,
        code=1,
    )
    with tb.ClientSync(cluster_id=CLUSTER_ID, replica_addresses=server.address) as client:
        (done,) = client.create_transfers([event])
    assert done.status == tb.CreateTransferStatus.CREATED


def test_a_run_whose_next_one_is_lost_is_not_decided(whole: Played, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / whole.path.name)
    first = tmp_path / whole.path.name
    with (first / population.TAKEN_BY).open("a") as file:
        file.write("20260101-000000-0000\n")
    found = audit(first)
    assert found.verdict == "unknown"
    assert "20260101-000000-0000" in wrong(found)["readable"]


def test_a_population_is_taken_by_one_run_at_a_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path))
    first = play(server, tmp_path, 1.0)
    second = play(server, tmp_path, 2.0, first)
    taken = population.take(first.path.name, target_of(server), server.address, 1)
    assert (taken.name, int(taken.tag), taken.wallets) == (first.path.name, first.tag, 10)
    with pytest.raises(Refusal, match="expected wallets that no run has, found another run"):
        population.take(second.path.name, target_of(server), server.address, 1)
    taken.close()
    again = population.take(second.path.name, target_of(server), server.address, 1)
    assert again.name == first.path.name  # whose wallets they are
    again.close()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("no such run", "run: expected an id such as"),
        ("of another cluster", "--population: expected a run of cluster 7"),
        ("goes on", "--population: expected a run that has ended"),
        ("two workers", "--population: expected wallets for 2 workers, found those of 1"),
        ("torn", "are no whole number of"),
        ("not there", "--population: expected the 53 accounts of"),
        ("another's", "found others of the same ids"),
    ],
)
def test_a_population_that_cannot_be_used_is_refused_before_any_load(
    server: Server,
    whole: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    message: str,
) -> None:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path))
    name, target, workers = whole.path.name, target_of(server), 1
    run = tmp_path / name
    shutil.copytree(whole.path, run)
    file = run / "accounts-0.bin"
    accounts = np.fromfile(file, ACCOUNT)
    if broken == "no such run":
        name = "20260101-000000-0000"
    elif broken == "of another cluster":
        mine = manifest().model_copy(update={"run": name, "tag": str(whole.tag)})
        runs.write_json(run / "run.json", mine.model_dump_json())
    elif broken == "goes on":
        (run / "result.json").unlink()
    elif broken == "two workers":
        workers = 2
    elif broken == "torn":
        file.write_bytes(accounts.tobytes()[:-1])
    elif broken == "not there":
        more = accounts[-1:].copy()
        more["id"][0, 0] += np.uint64(1)
        file.write_bytes(accounts.tobytes() + more.tobytes())
    else:
        accounts["code"][-1] = 99
        file.write_bytes(accounts.tobytes())
    with pytest.raises(Refusal) as raised:
        population.take(name, target, server.address, workers)
    assert message in str(raised.value)


@pytest.mark.long
def test_a_load_uses_the_wallets_of_an_earlier_one_and_both_pass(
    program: Program, server: Server
) -> None:
    assert program.load(server, seconds=3).returncode == 0
    first = program.newest
    second = program.load(server, "--population", first.name, "--wallets", "7", seconds=3)
    assert second.returncode == 0, second.stdout + second.stderr
    result = read_result(program.newest)
    assert result
    settings = result.manifest.settings
    assert (settings.population, settings.wallets) == (first.name, 50)
    found = program("--run", first.name, command="audit")
    assert found.returncode == 0, found.stdout + found.stderr
    audited = read_audit(first)
    assert audited and audited.verdict == "passed"
    wrong = program.load(server, "--population", first.name, "--processes", "2")
    assert wrong.returncode == 2
    assert "expected wallets for 2 workers, found those of 1" in wrong.stderr
