"""Beyond memory: rows that are merged from the disk are judged like columns in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.client import external, progress
from loadtests.client.external import Cursor, Sorter, Words, in_order, merge
from loadtests.client.records import CREATED, EXISTS, TRANSFER, UNANSWERED, RowsOfFile, pieces
from loadtests.proof import record
from loadtests.proof.proof import Proof
from loadtests.proof.record import Part, Record
from loadtests.proof.stored import summed
from tests.load import oracle, test_proof
from tests.load.ledgers import ANN, BOB, EXCEEDS_CREDITS, FEES, FUNDING, TAG, World, honest

SEEDS = st.integers(0, 2**32)


def matrix(rows: Sequence[tuple[int, ...]], width: int) -> Words:
    return np.array(rows, np.uint64).reshape(len(rows), width)


def blocks_of(rows: Words, size: int) -> Iterator[Words]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def check_blocks(blocks: list[Words], expected: Sequence[tuple[int, ...]]) -> None:
    """All rows in order, and no key in two blocks."""
    assert [tuple(row) for block in blocks for row in block.tolist()] == sorted(expected)
    for one, two in itertools.pairwise(blocks):
        assert one[-1, 0] < two[0, 0]


ROWS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**64 - 1)), max_size=60)


@given(ROWS, st.integers(1, 200))
def test_rows_come_back_sorted_however_little_memory_there_is(
    rows: list[tuple[int, int]], run_bytes: int
) -> None:
    sorter = Sorter(2, run_bytes=run_bytes)
    for start in range(0, len(rows), 7):
        sorter.add(matrix(rows[start : start + 7], 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "MERGE_BYTES", 64)
        for _ in range(2):  # it may be asked again
            check_blocks(list(sorter.sorted()), rows)


@given(st.lists(ROWS, max_size=4), st.integers(1, 9))
def test_streams_are_merged_without_cutting_a_key(
    streams: list[list[tuple[int, int]]], size: int
) -> None:
    parts = [blocks_of(in_order(matrix(rows, 2)), size) for rows in streams]
    check_blocks(list(merge(parts)), [row for rows in streams for row in rows])


@given(ROWS, st.integers(1, 9), st.lists(st.integers(0, 25), max_size=5))
def test_a_cursor_moves_forward_over_every_row_once(
    rows: list[tuple[int, int]], size: int, bounds: list[int]
) -> None:
    cursor = Cursor(merge([blocks_of(in_order(matrix(rows, 2)), size)]))
    seen: list[tuple[int, ...]] = []
    for bound in sorted(bounds):
        for block in cursor.until(np.uint64(bound)):
            seen += [tuple(row) for row in block.tolist()]
        assert seen == [row for row in sorted(rows) if row[0] <= bound]
    seen += [tuple(row) for block in cursor.until(None) for row in block.tolist()]
    assert seen == sorted(rows)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 2**32)), max_size=40)
)
def test_sums_are_combined_in_memory_and_on_the_disk(rows: list[tuple[int, int, int]]) -> None:
    sorter = Sorter(6, combine=summed, run_bytes=200)
    for account, side, limb in rows:
        sorter.add(matrix([(account, side, limb, 0, 0, limb)], 6))
    found = {tuple(row[:2]): row[2:] for b in sorter.sorted() for row in b.tolist()}
    keys = {row[:2] for row in rows}
    sums = {key: sum(limb for *of, limb in rows if tuple(of) == key) for key in keys}
    assert found == {key: [total, 0, 0, total] for key, total in sums.items()}


def test_nothing_is_left_in_the_folder_where_rows_were_sorted(tmp_path: Path) -> None:
    sorter = Sorter(1, tmp_path, run_bytes=64)
    sorter.add(np.arange(1000, dtype=np.uint64)[::-1].reshape(-1, 1))
    assert sum(len(block) for block in sorter.sorted()) == 1000
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_file_are_those_of_an_array(tmp_path: Path) -> None:
    lines = honest().record()
    (tmp_path / "record-0.bin").write_bytes(lines.tobytes())
    rows = RowsOfFile(tmp_path / "record-0.bin", lines.dtype)
    assert len(rows) == len(lines)
    assert rows[3:5].tobytes() == lines[3:5].tobytes()
    assert rows[5:3].tobytes() == b""
    assert b"".join(part.tobytes() for _, part in pieces(rows, 3)) == lines.tobytes()


# -- the same verdicts ---------------------------------------------------------------------------

BREACHES: list[Callable[[World], None]] = [
    test_proof.drop_acknowledgement,
    test_proof.lose_transfer,
    test_proof.double_id,
    test_proof.store_twice,
    test_proof.alter_amount,
    test_proof.swap_accounts,
    test_proof.move_in_time,
    test_proof.lose_leg,
    test_proof.lose_unanswered_leg,
    test_proof.keep_refused,
    test_proof.forge,
    test_proof.alter_unknown,
    test_proof.settle_twice,
]


def grown(seed: int) -> World:
    """The honest history, with many more of everything in it, some retried and some refused."""
    made, world = random.Random(seed), honest()
    for low, owner in enumerate((ANN, BOB), 98):
        world.send(low, FUNDING, owner, 1 << 110)
    low = 100
    for _ in range(made.randrange(0, 30)):
        low += made.randrange(2, 4)
        payer, payee = made.sample([ANN, BOB], 2)
        kind = made.random()
        if kind < 0.15:
            world.send(low, payer, payee, 1, answer=EXCEEDS_CREDITS, lands=False)
        elif kind < 0.3:
            world.send(low, payer, payee, 2, answer=UNANSWERED, lands=made.random() < 0.5)
        elif kind < 0.45:
            world.send(low, payer, payee, 3, flags=1, chain=(low, TAG))
            world.send(low + 1, payer, FEES, 1, chain=(low, TAG))
        elif kind < 0.6:
            world.send(low, payer, payee, 4, flags=2, timeout_s=made.randrange(1, 9))
            if made.random() < 0.7:
                world.send(low + 1, payer, payee, 4, flags=made.choice([4, 8]), pending=(low, TAG))
        else:
            world.send(low, payer, payee, made.randrange(1 << 70))
            if made.random() < 0.3:
                sent, _, timestamp = world.lines[-1]
                at = made.randrange(len(world.lines))
                world.lines.insert(at, (sent, made.choice([EXISTS, UNANSWERED]), timestamp))
    return world


def damaged(world: World, made: random.Random) -> None:
    """Whatever may happen to a record or a ledger, at random."""
    for _ in range(made.randrange(0, 4)):
        where: list[object] = made.choice([world.lines, world.stored])  # type: ignore[list-item]
        at = made.randrange(len(where))
        what = made.randrange(4)
        if what == 0:
            del where[at]
        elif what == 1:
            where.insert(made.randrange(len(where)), where[at])
        elif where is world.stored:
            row = bytearray(world.stored[at])
            row[made.choice([0, 8, 16, 48, 64, 80, 96, 108, 118, 120])] ^= 1 << made.randrange(3)
            world.stored[at] = bytes(row)
        else:
            sent, answer, stamp = world.lines[at]
            answer = made.choice([answer, CREATED, EXISTS, UNANSWERED, EXCEEDS_CREDITS])
            world.lines[at] = sent, answer, max(0, stamp + made.choice([0, 0, 10, -10]))
    if made.random() < 0.3:
        world.balances[made.choice([ANN, BOB, FEES])][made.randrange(4)] += made.randrange(1, 99)


def pages_of(world: World, size: int) -> list[np.ndarray]:
    """As a ledger is read: what has one timestamp is in one page."""
    rows = np.frombuffer(b"".join(world.stored), TRANSFER)
    rows = rows[np.argsort(rows["timestamp"], kind="stable")]
    places = np.searchsorted(rows["timestamp"], rows["timestamp"][::size])
    return np.split(rows, places[1:])


def both(world: World, workers: int, size: int, before: np.ndarray | None = None) -> None:
    """The streamed proof says of each check what the one in memory says."""
    lines, accounts = world.record(), world.accounts()
    cuts = [len(lines) * n // workers for n in range(workers + 1)]
    masks = [None if before is None else before[a:b] for a, b in itertools.pairwise(cuts)]
    parts = [Part(lines[a:b], mask) for a, b, mask in zip(cuts, cuts[1:], masks, strict=False)]
    streamed = Proof(Record(parts, TAG))
    whole = oracle.Proof(oracle.Record(lines, TAG, before))
    for page in pages_of(world, size):
        streamed.add_page(page)
        whole.add_page(page)
    assert streamed.last_expiry_ns() == whole.last_expiry_ns()
    asked = world.asked()
    said = {c.name: c for c in streamed.finish(accounts, asked)}
    expected = {c.name: c for c in whole.finish(accounts, asked)}
    assert {n: c.verdict for n, c in said.items()} == {n: c.verdict for n, c in expected.items()}
    assert streamed.resolved == whole.resolved
    assert streamed.count == whole.count
    for name, check in expected.items():  # nothing that passes is told in other words
        if check.verdict == "passed":
            assert said[name] == check
        elif name != "unknown resolved":  # and of what is wrong, there is as much
            assert counts(said[name].detail) == counts(check.detail)


def counts(detail: str) -> list[str]:
    return [part.split()[0] for part in detail.split("; ") if part[:1].isdigit()]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is sorted on the disk, and read in small pieces."""
    monkeypatch.setattr(record, "_PIECE_LINES", 5)
    monkeypatch.setattr(external, "MERGE_BYTES", 512)
    monkeypatch.setattr(Sorter.__init__, "__kwdefaults__", {"combine": _same, "run_bytes": 256})


def _same(rows: Words) -> Words:
    return rows


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.__name__)
@pytest.mark.parametrize("workers", [1, 3])
def test_each_broken_history_has_the_verdicts_it_had_in_memory(
    breach: Callable[[World], None], workers: int
) -> None:
    world = honest()
    breach(world)
    assert world.failed
    both(world, workers, 4)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 30))
def test_an_honest_history_passes_at_any_size(seed: int, workers: int, size: int) -> None:
    world = grown(seed)
    assert world.failed == {}
    both(world, workers, size)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 30), st.booleans())
def test_a_history_damaged_at_random_has_the_verdicts_it_had_in_memory(
    seed: int, workers: int, size: int, is_copy: bool
) -> None:
    world, made = grown(seed), random.Random(seed + 1)
    damaged(world, made)
    lines = len(world.lines)
    before = np.arange(lines) % 7 < made.randrange(8) if is_copy else None
    both(world, workers, size, before)


def test_of_a_copy_what_is_older_than_something_it_has_is_missed_without_any_clock() -> None:
    world = World()
    for low in (1, 2, 3, 4):
        world.send(low, FUNDING, ANN, 7)
    world.stored = [row for row in world.stored if row[0] in (1, 3)]  # and 4 may be missing
    proof = Proof(Record([Part(world.record(), 0)], TAG))
    for page in pages_of(world, 10):
        proof.add_page(page)
    check = proof.finish(world.accounts(), world.accounts())[0]
    assert check.detail == f"1 acknowledged, but not in the ledger: transfer {hex(TAG << 64 | 2)}"
    both(world, 1, 10, np.zeros(4, bool))


# -- how far it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "of", "said"),
    [
        (1_000_000, 20_000_000, "read: 1,000,000 of 20,000,000, 500,000 a second, 38 s left"),
        (1_000_000, None, "read: 1,000,000, 500,000 a second"),
        (0, 10, "read: 0 of 10, 0 a second"),
        (12, 10, "read: 12 of 10, 6 a second, 0 s left"),  # more came meanwhile
    ],
)
def test_progress_tells_the_rate_and_what_is_left(count: int, of: int | None, said: str) -> None:
    assert progress.told("read", count, of, 2.0) == said


def test_a_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress.Progress("read", 10).show(10)
    assert capsys.readouterr().out == ""
