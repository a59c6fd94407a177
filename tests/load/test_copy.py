"""A copy of a ledger at one instant: honest ones pass, and what was acknowledged before is missed.

The world here knows what no record says: when each answer arrived.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.refusal import Refusal
from loadtests.client.records import (
    ACCOUNT,
    CREATED,
    EXISTS,
    RECORD,
    TRANSFER,
    UNANSWERED,
    Array,
    pack_transfer,
)
from loadtests.proof import copy, cut
from loadtests.proof.proof import Proof
from loadtests.proof.record import Part, Record
from loadtests.run import history
from loadtests.run.result import Check
from loadtests.wallet.packing import pack_accounts, pack_transfers
from tests.resilience.histories import honest as honest_history

TAG = 0xC0B1
EUR = 978
START = 1_800_000_000_000_000_000
EXCEEDS_CREDITS = 54
SEEDS = st.integers(0, 2**32)
PASSED = Check(name="record complete", verdict="passed", detail="")


@dataclass
class Line:
    """One transfer of one client's request: what was answered, and when that arrived."""

    sent: bytes
    status: int
    stamp: int
    answered: int  # 0: never

    @property
    def low(self) -> int:
        return int.from_bytes(self.sent[:8], "little")


@dataclass
class World:
    """Some clients, each of which waits for its answer; one ledger that executes in order."""

    seed: int
    clients: list[list[Line]] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    frozen: int = 0
    clock: int = START
    _last: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clients = [[] for _ in range(self.random.randrange(1, 4))]
        free = [START] * len(self.clients)  # when each client has its last answer
        count = self.random.randrange(15, 40)
        cut_at = self.random.randrange(10, count - 3)
        for step in range(count):
            if step == cut_at:
                self._freeze(max(free))
            client = self.random.randrange(len(free))
            free[client] = self._request(client, free[client])

    def _freeze(self, latest: int) -> None:
        """Some answers are under way: what was executed is in the copy, and nothing later is."""
        self.frozen = self.random.randrange(self.clock, max(self.clock, latest) + 2)
        self.in_copy = list(self.stored)
        self.clock = self.frozen + 50_000_000

    def _request(self, client: int, free: int) -> int:
        """One request, when the client has nothing to wait for; when its answer arrives."""
        count = self.random.randrange(1, 5)
        self.clock = max(self.clock, free) + self.random.randrange(count + 1, 1000)
        answered = self.clock + self.random.randrange(1, 3000)
        is_lost = self.random.random() < 0.05
        for position in range(count):
            stamp = self.clock - count + position + 1
            self.clients[client].append(self._line(client, stamp, answered, is_lost=is_lost))
        return answered

    def _line(self, client: int, stamp: int, answered: int, *, is_lost: bool) -> Line:
        kind = self.random.random()
        before = [line for line in self.clients[client] if line.status == CREATED]
        if kind < 0.03 and before:  # sent once more: the answer carries the old timestamp
            first = self.random.choice(before)
            return Line(first.sent, EXISTS, first.stamp, answered)
        self._last += 1
        sent = pack_transfer(
            self._last, TAG, (1, TAG), (2, TAG), 10 + self._last,
            ledger=EUR, code=1, user_data_64=TAG,
        )  # fmt: skip
        if kind < 0.2:
            return Line(sent, EXCEEDS_CREDITS, stamp, answered)
        self.stored.append(sent[:120] + stamp.to_bytes(8, "little"))
        if is_lost:
            return Line(sent, UNANSWERED, 0, 0)
        return Line(sent, CREATED, stamp, answered)

    @property
    def lines(self) -> list[Line]:
        return [line for client in self.clients for line in client]

    def masks(self) -> list[np.ndarray]:
        return [np.arange(len(p.lines)) < p.before_count for p in self.known().parts]

    def known(self) -> copy.Known:
        return copy.Known(
            tag=TAG,
            parts=[
                Part(lines := packed(c), cut.count_before(lines, self.frozen)) for c in self.clients
            ],
            accounts=[accounts([])],
            complete=PASSED,
        )

    def failed(self, stored: list[bytes] | None = None) -> dict[str, str]:
        """What the copy is convicted of."""
        known, held = self.known(), self.in_copy if stored is None else stored
        proof = Proof(known.record)
        for start in range(0, len(held), 3):
            proof.add_page(np.frombuffer(b"".join(held[start : start + 3]), TRANSFER))
        checks = copy.judged(known, proof, copy.books_of(known, lambda _: accounts(held)))
        assert "holds settled" not in {check.name for check in checks}
        return {check.name: check.detail for check in checks if check.verdict != "passed"}


def packed(lines: list[Line]) -> Array:
    found = np.zeros(len(lines), RECORD)
    for row, line in enumerate(lines):
        found["sent"][row] = np.frombuffer(line.sent, TRANSFER)[0]
        found["result"]["status"][row] = line.status
        found["result"]["timestamp"][row] = line.stamp
    return found


def accounts(stored: list[bytes]) -> Array:
    """Both accounts, with what these transfers add up to."""
    total = sum(int.from_bytes(row[48:64], "little") for row in stored)
    found = np.zeros(2, ACCOUNT)
    found["id"] = [(1, TAG), (2, TAG)]
    found["ledger"] = EUR
    found["debits_posted"][0] = found["credits_posted"][1] = (total, 0)
    return found


def low_of(row: bytes) -> int:
    return int.from_bytes(row[:8], "little")


@settings(max_examples=60)
@given(seed=SEEDS)
def test_what_counts_as_answered_before_was(seed: int) -> None:
    """Never too much: by the instants of the answers, which the code has not seen."""
    world = World(seed)
    for client, mask in zip(world.clients, world.masks(), strict=True):
        for line, is_before in zip(client, mask.tolist(), strict=True):
            assert not is_before or line.answered <= world.frozen


@settings(max_examples=60)
@given(seed=SEEDS)
def test_of_each_client_at_most_what_it_waited_for_is_left_open(seed: int) -> None:
    """Nor too little: all but the last request with evidence of its own."""
    world = World(seed)
    for client, mask in zip(world.clients, world.masks(), strict=True):
        told = (CREATED, EXCEEDS_CREDITS)
        proven = [n for n, line in enumerate(client) if line.status in told]
        early = [n for n in proven if client[n].stamp <= world.frozen]
        if early:
            last = client[early[-1]].answered
            left = [n for n in early if client[n].answered != last and not mask[n]]
            # A retry between two requests has no instant of its own, and joins them.
            assert not left or any(line.status == EXISTS for line in client)


@settings(max_examples=60)
@given(seed=SEEDS)
def test_an_honest_copy_passes(seed: int) -> None:
    assert World(seed).failed() == {}


@settings(max_examples=60)
@given(seed=SEEDS)
def test_what_was_under_way_may_be_missing_from_the_end(seed: int) -> None:
    """Executed and not acknowledged at the freeze: a copy that starts may keep it, or drop it."""
    world = World(seed)
    acknowledged = {line.low for line in world.lines if line.answered <= world.frozen}
    stored = list(world.in_copy)
    while stored and low_of(stored[-1]) not in acknowledged:
        stored.pop()
        assert world.failed(stored) == {}


def copies(mutate: Callable[[World, random.Random], tuple[list[bytes], int] | None]) -> None:
    """The mutated copy is convicted, and the transfer named, whatever the world."""
    struck = 0

    @settings(max_examples=60, database=None)
    @given(seed=SEEDS)
    def strike(seed: int) -> None:
        nonlocal struck
        world = World(seed)
        if mutated := mutate(world, random.Random(seed)):
            stored, low = mutated
            struck += 1
            found = world.failed(stored)
            assert found, "passed"
            names = hex(TAG << 64 | low), str(TAG << 64 | low)
            assert any(name in detail for detail in found.values() for name in names), found

    strike()
    assert struck > 5, "it has found no place to strike, so it proves nothing"


def demanded(world: World) -> list[int]:
    """The transfers that each client had been told of, and then had asked for more."""
    found = []
    for client in world.clients:
        early = [line for line in client if line.status != EXISTS and line.stamp > 0]
        early = [line for line in early if line.stamp <= world.frozen]
        last = early[-1].answered if early else 0
        if not any(line.status == EXISTS for line in client):
            found += [line.low for line in early if line.status == CREATED and line.answered < last]
    return found


def without_one_told(world: World, by: random.Random) -> tuple[list[bytes], int] | None:
    wanted = demanded(world)
    if not wanted:
        return None
    low = by.choice(wanted)
    return [row for row in world.in_copy if low_of(row) != low], low


def without_one_in_the_middle(world: World, by: random.Random) -> tuple[list[bytes], int] | None:
    """Not demanded by any clock; but something later is there, as it was acknowledged."""
    told = {line.low: line for line in world.lines if line.status == CREATED}
    rows = [row for row in world.in_copy if low_of(row) in told]
    if len(rows) < 2:
        return None
    low = low_of(by.choice(rows[:-1]))
    return [row for row in world.in_copy if low_of(row) != low], low


def with_another_amount(world: World, by: random.Random) -> tuple[list[bytes], int] | None:
    told = {line.low for line in world.lines}
    at = by.randrange(len(world.in_copy)) if world.in_copy else -1
    if at < 0 or low_of(world.in_copy[at]) not in told:
        return None
    row = world.in_copy[at]
    changed = row[:48] + bytes([row[48] ^ 1]) + row[49:]
    stored = [*world.in_copy[:at], changed, *world.in_copy[at + 1 :]]
    return stored, low_of(row)


def with_one_refused(world: World, by: random.Random) -> tuple[list[bytes], int] | None:
    """Refused before the freeze, for certain, and stored all the same."""
    rows = zip(world.lines, np.concatenate(world.masks()).tolist(), strict=True)
    refused = [line for line, early in rows if early and line.status == EXCEEDS_CREDITS]
    if not refused:
        return None
    line = by.choice(refused)
    forged = line.sent[:120] + line.stamp.to_bytes(8, "little")
    return sorted([*world.in_copy, forged], key=lambda row: row[120:][::-1]), line.low


def with_one_that_nobody_sent(world: World, by: random.Random) -> tuple[list[bytes], int] | None:
    if not world.in_copy:
        return None
    row = world.in_copy[-1]
    forged = (999).to_bytes(8, "little") + row[8:120] + (world.frozen).to_bytes(8, "little")
    return [*world.in_copy, forged], 999


@pytest.mark.parametrize(
    "mutate",
    [
        without_one_told,
        without_one_in_the_middle,
        with_another_amount,
        with_one_refused,
        with_one_that_nobody_sent,
    ],
    ids=lambda one: one.__name__,
)
def test_a_broken_copy_is_convicted_and_the_transfer_named(
    mutate: Callable[[World, random.Random], tuple[list[bytes], int] | None],
) -> None:
    copies(mutate)


def test_a_copy_of_another_time_is_convicted() -> None:
    """The manifest names the instant, and the files are an older backup's."""
    world = World(3)
    assert demanded(world)
    assert "acknowledged, but not in the ledger" in world.failed([])["acknowledged"]


def test_an_account_with_another_balance_is_convicted() -> None:
    world = World(3)
    known = world.known()
    proof = Proof(known.record)
    proof.add_page(np.frombuffer(b"".join(world.in_copy), TRANSFER))
    found = accounts(world.in_copy)
    found["debits_posted"][0] = found["credits_posted"][1] = (7, 0)
    checks = copy.judged(known, proof, copy.books_of(known, lambda _: found))
    assert {check.name for check in checks if check.verdict == "failed"} == {"balances"}


def test_without_the_whole_record_nothing_is_convicted_by_what_that_lacks() -> None:
    world = World(3)
    known = replace(world.known(), complete=PASSED.model_copy(update={"verdict": "unknown"}))
    *others, last = known.parts
    proof = Proof(Record([*others, replace(last, lines=last.lines[:-1])], known.tag))
    stored = [*world.in_copy, *world.stored[len(world.in_copy) :]]
    proof.add_page(np.frombuffer(b"".join(stored), TRANSFER))
    books = copy.books_of(known, lambda _: accounts(stored))
    verdicts = {c.name: c.verdict for c in copy.judged(known, proof, books)}
    assert verdicts["nothing else"] in ("passed", "unknown")
    assert verdicts["acknowledged"] == "passed"


def test_one_request_of_many_transfers_is_open_or_not_as_a_whole() -> None:
    lines = [Line(pack_transfer(n, TAG, (1, TAG), (2, TAG), 1, ledger=EUR, code=1), CREATED, s, 1)
             for n, s in enumerate([10, 11, 12, 100, 101, 102, 103], 1)]  # fmt: skip
    for limit, count in [(9, 0), (12, 0), (99, 0), (100, 3), (101, 3), (103, 3), (10_000, 3)]:
        assert cut.count_before(packed(lines), limit) == count


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_of_a_recorded_history_what_was_answered_before_is_told_by_its_workers(
    seed: int, share: float
) -> None:
    """By the instants of the answers, in the simulation's own time."""
    whole = honest_history(seed)
    told = sorted((o for o in whole.operations if o.timestamp), key=lambda o: o.timestamp)
    at = told[int((len(told) - 1) * share)]
    numbers = cut.numbers_before(whole.operations, at.timestamp)
    executed = {o.number for o in told if o.timestamp <= at.timestamp}
    assert numbers & {o.number for o in told} <= executed
    workers = {o.worker for o in whole.operations}
    assert len(executed - numbers) <= len(workers)


def write_history(run: Path, seed: int = 1) -> history.History:
    whole = honest_history(seed)
    writer = history.Writer(run)
    for operation in whole.operations:
        writer.add(operation)
    writer.close()
    return whole


@pytest.mark.parametrize("seed", range(6))
def test_a_recorded_history_is_proven_in_a_copy_of_its_middle(seed: int, tmp_path: Path) -> None:
    whole = write_history(tmp_path, seed)
    stored = {t.id: t for o in whole.operations if o.final for t in o.found_transfers}
    ordered = sorted(stored.values(), key=lambda t: t.timestamp)
    middle = ordered[len(ordered) // 2]
    at = datetime.fromtimestamp(middle.timestamp / 1e9, UTC)
    known = copy.known(tmp_path, at, is_one_clock=True)
    held = [t for t in ordered if t.timestamp <= middle.timestamp]

    def acknowledged(transfers: list[history.Transfer]) -> Check:
        proof = Proof(known.record)
        proof.add_page(pack_transfers(transfers))
        checks = copy.judged(known, proof, copy.books_of(known, lambda _: pack_accounts([])))
        return next(check for check in checks if check.name == "acknowledged")

    assert acknowledged(held).verdict == "passed"
    for lost in (held[0], held[len(held) // 2]):
        found = acknowledged([t for t in held if t is not lost])
        assert found.verdict == "failed"
        assert hex(lost.id) in found.detail


def test_a_backup_from_before_the_run_is_refused_in_one_line(tmp_path: Path) -> None:
    write_history(tmp_path)
    before = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    with pytest.raises(Refusal) as refused:
        copy.known(tmp_path, before, is_one_clock=True)
    said = str(refused.value)
    assert "answers from before the backup was taken, at 2020-01-02T03:04:05Z" in said
    assert "Fix: name an earlier run" in said
    assert "\n" not in said


def test_servers_clocks_may_be_apart_by_what_a_deploy_lets_them() -> None:
    at = datetime(2027, 1, 1, tzinfo=UTC)
    here, there = (cut.limit_ns(at, is_one_clock=one) for one in (True, False))
    assert here == int(at.timestamp()) * 10**9
    assert here - there == 5 * 10**9
