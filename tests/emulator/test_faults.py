"""Faults on request: changed while it runs, told to every client, or refused in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from decimal import Decimal

import pytest

import tigerbeetle_emulator
from tests.emulator import raw, records
from tests.emulator.raw import RawClient
from tests.emulator.watched import eventually
from tigerbeetle_emulator.server.faults import Faults

_LOOKUP = raw.multi_batch(
    records.LOOKUP_ACCOUNTS, [b"".join(records.pack(records.ID, id=n) for n in (1, 2))]
)


@pytest.fixture
def cluster() -> Iterator[tigerbeetle_emulator.Emulator]:
    with tigerbeetle_emulator.run() as emulator:
        yield emulator


def _port(cluster: tigerbeetle_emulator.Emulator) -> int:
    return int(cluster.address.rpartition(":")[2])


def _answers(port: int) -> bool:
    try:
        with RawClient(port) as client:
            return client.ping() is not None
    except (OSError, raw.Closed):
        return False


# -- assigned while it runs ------------------------------------------------------------------------


def test_new_faults_strike_the_next_request(cluster: tigerbeetle_emulator.Emulator) -> None:
    with RawClient(_port(cluster)) as client:
        client.register()
        cluster.faults = Faults(evict=1.0)
        answer = client.ask(records.LOOKUP_ACCOUNTS, _LOOKUP)
        assert answer is not None
        assert answer.reason == 1
        cluster.faults = Faults()
        client.request(records.LOOKUP_ACCOUNTS, _LOOKUP)


def test_faults_that_were_assigned_can_be_changed_afterwards(
    cluster: tigerbeetle_emulator.Emulator,
) -> None:
    faults = cluster.faults = Faults()
    with RawClient(_port(cluster)) as client:
        client.register()
        faults.drop_replies = 1.0
        assert client.ask(records.LOOKUP_ACCOUNTS, _LOOKUP) is None
    assert cluster.faults is faults


def test_new_faults_outlast_a_stop(cluster: tigerbeetle_emulator.Emulator) -> None:
    cluster.stop()
    cluster.faults = Faults(refuse=1.0)
    cluster.start()
    assert not _answers(_port(cluster))
    cluster.faults = Faults()
    assert _answers(_port(cluster))


@pytest.mark.parametrize("how", ["a field", "new faults"])
def test_coming_and_going_begins_and_ends_while_it_runs(
    cluster: tigerbeetle_emulator.Emulator, how: str
) -> None:
    port = _port(cluster)
    assert _answers(port)
    if how == "a field":
        cluster.faults.stop_every, cluster.faults.stop_for = 0.01, 3600.0
    else:
        cluster.faults = Faults(stop_every=0.01, stop_for=3600.0)
    eventually(lambda: not _answers(port))
    cluster.faults.stop_every = 0.0
    eventually(lambda: _answers(port))


def test_a_shorter_absence_counts_at_once(cluster: tigerbeetle_emulator.Emulator) -> None:
    port = _port(cluster)
    cluster.faults = Faults(stop_every=0.01, stop_for=3600.0)
    eventually(lambda: not _answers(port))
    cluster.faults = Faults(stop_every=3600.0, stop_for=0.01)
    eventually(lambda: _answers(port))


def test_a_sooner_absence_counts_at_once(cluster: tigerbeetle_emulator.Emulator) -> None:
    port = _port(cluster)
    cluster.faults = Faults(stop_every=3600.0, stop_for=3600.0)
    time.sleep(0.3)  # time to plan the first one
    assert _answers(port)
    cluster.faults.stop_every = 0.01
    eventually(lambda: not _answers(port))


@pytest.mark.parametrize("wrong", [None, {"evict": 1.0}, Faults, "evict"])
def test_what_is_no_faults_is_refused(
    cluster: tigerbeetle_emulator.Emulator, wrong: object
) -> None:
    before = cluster.faults
    with pytest.raises(TypeError, match=r"faults: expected Faults\(\.\.\.\), found "):
        cluster.faults = wrong  # type: ignore[assignment]
    assert cluster.faults is before
    assert _answers(_port(cluster))


def test_a_run_refuses_what_is_no_faults_before_it_listens() -> None:
    with (
        pytest.raises(TypeError, match=r"faults: expected Faults\(\.\.\.\), found \{'evict': 1\}"),
        tigerbeetle_emulator.run(faults={"evict": 1}),  # type: ignore[arg-type]
    ):
        pass


# -- refused ---------------------------------------------------------------------------------------

_WRONG_VALUES = [
    ("drop_replies", 1.5, ValueError, r"drop_replies: expected a rate 0\.\.1, found 1\.5"),
    ("refuse", -0.1, ValueError, "refuse: expected a rate"),
    ("evict", float("nan"), ValueError, "evict: expected a rate"),
    ("lose_commits", "0.5", TypeError, "lose_commits: expected a number, found '0.5'"),
    ("stale_reads", None, TypeError, "stale_reads: expected a number, found None"),
    ("double_transfers", Decimal("0.5"), TypeError, "double_transfers: expected a number"),
    ("latency", -1, ValueError, "latency: expected seconds >= 0, found -1"),
    ("latency_jitter", float("inf"), ValueError, "latency_jitter: expected seconds >= 0"),
    ("stop_every", float("nan"), ValueError, "stop_every: expected seconds >= 0, found nan"),
    ("stop_for", [1], TypeError, r"stop_for: expected a number, found \[1\]"),
    ("seed", 1.5, TypeError, "seed: expected an integer, found 1.5"),
    ("seed", None, TypeError, "seed: expected an integer, found None"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), _WRONG_VALUES)
def test_a_wrong_value_is_refused_when_made_and_when_assigned(
    name: str, value: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Faults(**{name: value})  # type: ignore[arg-type]
    faults = Faults(**{name: 1})
    with pytest.raises(error, match=words):
        setattr(faults, name, value)
    assert getattr(faults, name) == 1


def test_an_unknown_field_is_refused_and_the_known_ones_are_named() -> None:
    faults = Faults()
    with pytest.raises(
        AttributeError, match=r"there is no fault 'drop_reply'; there are .*drop_replies"
    ):
        faults.drop_reply = 1.0  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="drop_reply"):
        Faults(drop_reply=1.0)  # type: ignore[call-arg]
    assert faults == Faults()


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.25, 1.0, True, False])
def test_all_values_of_a_rate_are_taken(value: float) -> None:
    faults = Faults(refuse=value)
    faults.evict = value
    assert (faults.refuse, faults.evict) == (value, value)


def test_a_copy_is_as_strict_as_its_original() -> None:
    for faults in (copy(Faults(seed=3)), replace(Faults(), seed=3)):
        assert faults == Faults(seed=3)
        with pytest.raises(ValueError, match="evict"):
            faults.evict = 2.0


def test_a_new_seed_begins_its_choices_anew() -> None:
    changed, fresh = Faults(seed=1), Faults(seed=2)
    changed.strikes(0.5)
    changed.seed = 2
    draws = [[each.strikes(0.5) for _ in range(64)] for each in (changed, fresh)]
    assert draws[0] == draws[1]


# -- lies, to clients of every release -------------------------------------------------------------


class _Ledger:
    """Two accounts, seen by a client of one release, through its own operations."""

    def __init__(self, port: int, release: int, numbers: tuple[int, int, int]) -> None:
        self.client = RawClient(port)
        self.client.release = release
        self.accounts, self.transfers, self.lookup = numbers
        self.client.register()
        two = (records.pack(records.ACCOUNT, id=n, ledger=1, code=1) for n in (1, 2))
        self.ask(self.accounts, b"".join(two))

    def ask(self, operation: int, events: bytes) -> bytes:
        """The results of one batch."""
        if operation not in records.MULTI_BATCH:
            return self.client.request(operation, events).body
        answer = self.client.batches(operation, [events])
        return raw.split_batches(answer.body, records.size(records.OPERATIONS[operation][2]))[0]

    def create(self, *transfers: dict[str, int]) -> list[int]:
        """The status of each."""
        events = b"".join(
            records.pack(
                records.TRANSFER,
                **{"debit_account_id": 1, "credit_account_id": 2, "ledger": 1, "code": 1, **each},
            )
            for each in transfers
        )
        layout = records.OPERATIONS[self.transfers][2]
        results = records.unpack(layout, self.ask(self.transfers, events))
        if layout is records.CREATE_RESULT:
            return [result["status"] for result in results]
        failed = {result["index"]: result["status"] for result in results}
        return [failed.get(index, records.CREATED) for index in range(len(transfers))]

    def moved(self) -> tuple[int, int]:
        """What account 1 has paid and account 2 has got."""
        ids = b"".join(records.pack(records.ID, id=n) for n in (1, 2))
        payer, payee = records.unpack(records.ACCOUNT, self.ask(self.lookup, ids))
        return payer["debits_posted"], payee["credits_posted"]


@pytest.fixture(
    params=[
        (raw.RELEASE, (146, 147, 140)),
        (0x1046, (138, 139, 140)),  # 0.16.70
        (0x1023, (138, 139, 140)),  # 0.16.35
        (0x1021, (129, 130, 131)),  # 0.16.33
    ],
    ids=["0.17.9", "0.16.70", "0.16.35", "0.16.33"],
)
def ledger(
    cluster: tigerbeetle_emulator.Emulator, request: pytest.FixtureRequest
) -> Iterator[_Ledger]:
    """Of a client of each release that numbers its operations in its own way."""
    found = _Ledger(_port(cluster), *request.param)
    yield found
    found.client.close()


_CREATED, _NO_DEBIT_ACCOUNT = records.CREATED, 21


def test_without_faults_every_client_hears_the_truth(ledger: _Ledger) -> None:
    made = ledger.create({"id": 1, "amount": 5}, {"id": 2, "amount": 7, "debit_account_id": 9})
    assert made == [_CREATED, _NO_DEBIT_ACCOUNT]
    assert ledger.moved() == (5, 5)


def test_lost_commits_are_acknowledged_to_every_client(
    cluster: tigerbeetle_emulator.Emulator, ledger: _Ledger
) -> None:
    cluster.faults.lose_commits = 1.0
    made = ledger.create({"id": 1, "amount": 5}, {"id": 2, "amount": 7, "debit_account_id": 9})
    assert made == [_CREATED, _CREATED]
    assert ledger.moved() == (0, 0)
    cluster.faults.lose_commits = 0.0
    assert ledger.create({"id": 1, "amount": 5}) == [_CREATED]  # not `exists`
    assert ledger.moved() == (5, 5)


def test_double_transfers_are_told_to_every_client(
    cluster: tigerbeetle_emulator.Emulator, ledger: _Ledger
) -> None:
    cluster.faults.double_transfers = 1.0
    made = ledger.create(
        {"id": 1, "amount": 7, "debit_account_id": 9},
        {"id": 2, "amount": 5},
        {"id": 2, "amount": 5},
    )
    assert made == [_NO_DEBIT_ACCOUNT, _CREATED, 46]  # neither what failed nor what existed
    assert ledger.moved() == (10, 10)


def test_stale_reads_are_told_to_every_client(
    cluster: tigerbeetle_emulator.Emulator, ledger: _Ledger
) -> None:
    cluster.faults.stale_reads = 1.0
    assert ledger.moved() == (0, 0)
    assert ledger.create({"id": 1, "amount": 5}) == [_CREATED]
    assert ledger.moved() == (0, 0)
    cluster.faults.stale_reads = 0.0
    assert ledger.moved() == (5, 5)


def test_a_balancing_transfer_moves_what_it_moved_a_second_time(
    cluster: tigerbeetle_emulator.Emulator, ledger: _Ledger
) -> None:
    balancing_debit = 16
    ledger.create({"id": 1, "amount": 30, "debit_account_id": 2, "credit_account_id": 1})
    cluster.faults.double_transfers = 1.0
    everything = {"id": 2, "amount": records.U128_MAX, "flags": balancing_debit}
    assert ledger.create(everything) == [_CREATED]
    assert ledger.moved() == (60, 60)


def test_an_amount_too_large_to_be_moved_twice_is_moved_once(
    cluster: tigerbeetle_emulator.Emulator, ledger: _Ledger
) -> None:
    cluster.faults.double_transfers = 1.0
    assert ledger.create({"id": 1, "amount": records.U128_MAX - 1}) == [_CREATED]
    assert ledger.moved() == (records.U128_MAX - 1,) * 2  # and it still answers


def test_releases_do_not_share_their_stale_reads(cluster: tigerbeetle_emulator.Emulator) -> None:
    cluster.faults.stale_reads = 1.0
    ids = b"".join(records.pack(records.ID, id=n) for n in (1, 2))
    ids += records.trailer([2], 16)  # as one plain array: an id that nobody has
    with RawClient(_port(cluster)) as new, RawClient(_port(cluster)) as old:
        old.release = 0x1021
        new.register()
        old.register()
        old.request(131, ids)
        answer = new.request(records.LOOKUP_ACCOUNTS, ids)
        assert raw.split_batches(answer.body, 128) == [b""]
