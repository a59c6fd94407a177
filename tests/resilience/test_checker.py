"""The checker is checked: honest histories pass, and every way to break one is convicted."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.refusal import Refusal
from loadtests.proof.checker import check
from loadtests.proof.proof import verdict_of
from loadtests.run import history as histories
from loadtests.run.history import History
from tests.resilience.histories import honest
from tests.resilience.mutations import MUTATIONS
from tests.resilience.places import NoPlaceError, exchanged

SAMPLES = 12
SEEDS = st.integers(0, SAMPLES - 1)


def written(run: Path, history: History) -> None:
    writer = histories.Writer(run)
    for operation in history.operations:
        writer.add(operation)
    writer.close()


@cache
def sample(seed: int) -> History:
    return honest(seed)


@settings(max_examples=20)
@given(seed=st.integers(100, 2**31))
def test_what_an_honest_ledger_answers_is_passed(seed: int) -> None:
    found = check(honest(seed))
    assert [c.detail for c in found if c.verdict != "passed"] == []


def test_the_honest_samples_hold_everything_that_is_judged() -> None:
    operations = [o for seed in range(SAMPLES) for o in sample(seed).operations]
    statuses = {status for o in operations for status in o.statuses}
    assert statuses >= {
        "created",
        "exists",
        "exists_with_different_amount",
        "exceeds_credits",
        "linked_event_failed",
        "pending_transfer_not_found",
        "pending_transfer_expired",
        "pending_transfer_already_posted",
        "pending_transfer_already_voided",
        "id_already_failed",
    }
    stored = {t.id for o in operations if o.final for t in o.found_transfers}
    lost = {t.id for o in operations if o.outcome == "unknown" for t in o.transfers}
    assert lost & stored
    assert lost - stored


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda name: name)
def test_a_broken_history_is_convicted(mutation: str) -> None:
    @settings(max_examples=8, database=None)
    @given(seed=SEEDS, place=st.integers(0, 2**31))
    def strike(seed: int, place: int) -> None:
        whole, broken = broken_by(mutation, seed, place)
        assert broken != whole
        found = check(broken)
        assert verdict_of(found) == "failed", found
        assert all(c.detail for c in found)

    strike()


def broken_by(mutation: str, seed: int, place: int) -> tuple[History, History]:
    """The first sample from ``seed`` on that has a place for the mutation, whole and broken."""
    for other in range(seed, seed + SAMPLES):
        whole = sample(other % SAMPLES)
        try:
            return whole, MUTATIONS[mutation](whole, random.Random(place))
        except NoPlaceError:
            continue
    raise AssertionError(f"{mutation} finds no place to strike, so it proves nothing")


def test_a_conviction_names_the_operation() -> None:
    broken = MUTATIONS["overdraft_is_acknowledged"](sample(1), random.Random(1))
    (changed,) = (
        set(broken.operations)
        - set(sample(1).operations)
        - {o for o in broken.operations if o.final}
    )
    answers = next(c for c in check(broken) if c.name == "answers")
    assert f"operation {changed.number} (worker {changed.worker}, {changed.action})" in (
        answers.detail
    )
    assert "expected exceeds_credits, found created" in answers.detail


def test_a_history_that_was_cut_off_is_never_passed() -> None:
    found = check(replace(sample(0), is_complete=False))
    assert verdict_of(found) == "unknown"


def test_a_history_without_its_final_reads_is_never_passed() -> None:
    kept = tuple(o for o in sample(0).operations if not o.final)
    found = check(History(kept))
    assert verdict_of(found) != "passed"
    assert "ids were not read at the end" in found[0].detail


def test_a_final_read_without_an_answer_is_never_passed() -> None:
    last = sample(0).operations[-1]
    lost = replace(last, outcome="unknown", completed=None, timestamp=0, found_accounts=())
    found = check(exchanged(sample(0), lost))
    assert verdict_of(found) != "passed"


def test_an_empty_history_proves_nothing() -> None:
    assert verdict_of(check(History(()))) == "unknown"


def test_what_the_model_does_not_know_is_unknown_rather_than_passed() -> None:
    done = next(o for o in sample(0).operations if o.action == "pay" and o.outcome == "ok")
    balancing = replace(done, transfers=(replace(done.transfers[0], flags=16),))
    found = {c.name: c for c in check(exchanged(sample(0), balancing))}
    assert found["replay"].verdict == "unknown"
    assert "flags 0x10" in found["replay"].detail


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path, sample(3))
    assert histories.read(tmp_path) == sample(3)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_torn_file_is_read_as_cut_off(tmp_path: Path, kept: float) -> None:
    written(tmp_path, sample(3))
    path = tmp_path / histories.FILE
    text = path.read_text()
    path.write_text(text[: int(len(text) * kept)])
    assert not histories.read(tmp_path).is_complete


def test_a_line_that_is_no_operation_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / histories.FILE).write_text('{"number": 1, "what": 2}\n')
    with pytest.raises(Refusal, match="expected an operation"):
        histories.read(tmp_path)


def test_every_check_convicts_some_history() -> None:
    every = {c.name for c in check(sample(0))}
    convicting = {
        c.name
        for mutation in MUTATIONS
        for place in range(8)
        for c in check(broken_by(mutation, place % SAMPLES, place)[1])
        if c.verdict == "failed"
    }
    assert every - convicting == {"history complete", "unknown resolved"}  # unknown, or by others
