"""What a run leaves behind: windows, sums over workers, the published schema, comparisons."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.refusal import Refusal
from loadtests.report import compare, schema
from loadtests.run import runs
from loadtests.run.conductor import Conductor
from loadtests.run.meter import Here
from loadtests.run.result import Result
from loadtests.run.series import Series, by_action, composition, figures
from tests.load.samples import STARTED, manifest, result, second


def test_the_published_schema_is_the_models() -> None:
    published = json.loads(schema.PATH.read_text(encoding="utf-8"))
    assert published == schema.build()


def test_a_result_survives_its_file() -> None:
    made = result()
    assert Result.model_validate_json(made.model_dump_json()) == made


def test_a_field_that_is_none_of_ours_is_refused() -> None:
    content = result().model_dump() | {"throughput": 1}
    with pytest.raises(ValidationError, match="throughput"):
        Result.model_validate(content)


def test_two_workers_add_up() -> None:
    seconds = [second(STARTED + 1, 2), second(STARTED + 1, 200)]
    seconds[1]["worker"] = 1
    summed = figures(seconds, 1.0)
    assert summed.actions == 200
    assert summed.latency.p50_ms == pytest.approx(2, rel=0.02)
    assert summed.latency.p99_ms == pytest.approx(200, rel=0.02)
    series = Series()
    for made in seconds:
        series.add(made)
    assert [point.ok for point in series.points()] == [200]


def test_the_latest_point_is_the_last_of_all() -> None:
    series = Series()
    assert series.latest() is None
    for at in (1, 1, 3, 2):  # a worker's second may come in late
        series.add(second(STARTED + at, 2.0 + at))
        assert series.latest() == series.points()[-1]


def conductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warmup_s: float) -> Conductor:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path))
    sample = manifest(warmup_s=warmup_s)
    made = Conductor(sample.target, sample.settings, name="one")
    made.finished[0] = {"worker": 0, "sent": 1000, "unanswered": 0}
    return made


@pytest.mark.parametrize(
    ("hosts", "pids", "elsewhere"),
    [
        (["10.0.9.21", "10.0.9.22"], [], True),
        (["10.0.9.21", "10.0.9.22"], [1234], False),  # a replica runs here
        (["10.0.9.21", platform.node()], [], False),
        ([], [], False),  # nobody has said where they are
    ],
)
def test_what_else_a_machine_does_matters_where_it_sends_or_serves(
    hosts: list[str],
    pids: list[int],
    elsewhere: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=0)
    for worker, host in enumerate(hosts):
        run.workers[worker] = Here(worker=worker, host=host, clock_offset_ms=None, rtt_ms=None)
    monkeypatch.setattr(type(run._servers), "pids", property(lambda _: pids))
    assert run.is_elsewhere == elsewhere


def test_the_warm_up_and_the_last_answers_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=3)
    for i in range(10):
        run.series.add(second(STARTED + 1 + i, 500.0 if i < 3 else 2.0))
    run.series.add(second(STARTED + 11, 900.0, tail=True))
    found = run.finish(workers=1)
    assert found.window.duration_s == pytest.approx(7)
    assert found.window.actions == 700
    assert found.window.actions_per_s == pytest.approx(100)
    assert (found.window.latency.max_ms or 0) < 3
    assert found.transfers_acknowledged == 1100  # of the whole run


def test_a_run_shorter_than_its_warm_up_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=30)
    run.series.add(second(STARTED + 1, 2))
    assert "shorter than its warm-up" in run.finish(workers=1).notes[0]


def test_a_worker_that_never_reported_makes_the_result_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=0)
    run.series.add(second(STARTED + 1, 2))
    found = run.finish(workers=2)
    assert not found.complete
    assert found.notes[0] == "worker 1: its last figures and its record did not arrive"


def test_a_generator_at_its_limit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=0)
    run.series.add(second(STARTED + 1, 2, cpu_percent=95.0))
    assert any("the generator, not the cluster" in note for note in run.finish(1).notes)


def test_a_fault_noted_from_outside_is_in_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = conductor(tmp_path, monkeypatch, warmup_s=0)
    run.series.add(second(STARTED + 1, 2))
    runs.mark_fault(run.path, "SIGKILL of replica 1", at=STARTED + 0.5)
    assert [(f.at, f.what) for f in run.finish(1).faults] == [
        (STARTED + 0.5, "SIGKILL of replica 1")
    ]


def test_an_unknown_run_is_told_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path))
    with pytest.raises(Refusal, match=r"found none\. Fix: load a cluster first"):
        runs.find()
    conductor(tmp_path, monkeypatch, warmup_s=0)
    assert runs.find().name == "one"
    with pytest.raises(Refusal, match="expected an id such as one, found two"):
        runs.find("two")


def test_a_torn_record_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "record-0.bin").write_bytes(bytes(145))
    with pytest.raises(ValueError, match="145 bytes are no whole number of 144-byte lines"):
        runs.records_of(tmp_path)


# -- comparisons -------------------------------------------------------------------------------


def at(milliseconds: float) -> Result:
    return result([second(STARTED + 1 + i, milliseconds) for i in range(5)])


def test_a_clear_difference_between_groups_is_told_from_noise() -> None:
    slow, fast = [at(10.0), at(10.5), at(9.5)], [at(2.0), at(2.1), at(1.9)]
    found = {d.name: d for d in compare.differences(slow, fast)}
    assert found["p50 ms"].meaning == "differs"
    assert found["p50 ms"].ratio == pytest.approx(0.2, rel=0.1)
    same = {d.name: d for d in compare.differences(slow, [at(9.4), at(10.6), at(10.1)])}
    assert same["p50 ms"].meaning == "within the variation"


def test_single_runs_are_compared_without_a_claim() -> None:
    found = {d.name: d for d in compare.differences([at(10.0)], [at(2.0)])}
    assert found["p50 ms"].meaning == "one run each: variation not known"


def test_settings_that_differ_are_listed() -> None:
    assert compare.settings_that_differ(result(users=50), result(users=200)) == [
        "setting users: 50 / 200"
    ]


def test_the_schema_describes_what_other_programs_read() -> None:
    TypeAdapter(dict).validate_python(schema.build())
    assert {"result.json", "audit.json", "run.json"} <= set(schema.build()["files"])


# -- what latency consists of ------------------------------------------------------------------


def test_the_slowest_are_told_from_the_median() -> None:
    """A stall is waited for by those that come meanwhile; the others know only their packet."""
    usual, stalled = (980, 0.0, 0.1, 0.9, 0.1), (20, 0.0, 1.6, 0.2, 0.02)
    found = composition([(90, usual), (140, stalled)])
    assert found
    assert (found.all.actions, found.median.actions, found.slowest.actions) == (1000, 980, 20)
    assert found.slowest.waiting_ms == pytest.approx(80)
    assert found.slowest.packet_ms == pytest.approx(10)
    assert found.median.waiting_ms == pytest.approx(0.1 / 0.98)
    assert found.all.mean_ms == pytest.approx(1000 * (1.1 + 1.82) / 1000)


@pytest.mark.parametrize("actions", [1, 2, 50, 99, 100, 101])
def test_few_actions_have_a_slowest_too(actions: int) -> None:
    found = composition([(bucket, (1, 0.0, 0.0, 0.001, 0.0)) for bucket in range(actions)])
    assert found
    assert (found.slowest.actions, found.median.actions) == (1, 1)


def test_nothing_consists_of_nothing() -> None:
    assert composition([]) is None
    assert figures([], 0.0).composition is None


def test_workers_parts_add_up_and_those_of_an_action_are_its_mean() -> None:
    seconds = [second(STARTED + 1, 2), second(STARTED + 1, 200)]
    found = figures(seconds, 1.0).composition
    assert found
    assert (found.all.actions, found.slowest.actions) == (200, 100)
    assert found.all.mean_ms == pytest.approx(101)
    assert found.slowest.mean_ms == pytest.approx(200)
    parts = by_action(seconds, 1.0)["pay"].parts
    assert parts
    assert (parts.waiting_ms, parts.packet_ms, parts.generator_ms) == pytest.approx(
        (50.5, 30.3, 20.2)
    )


def test_a_result_of_before_its_parts_were_kept_is_read() -> None:
    content = result().model_dump(mode="json")
    del content["window"]["composition"]
    for action in content["actions"].values():
        del action["parts"]
    assert Result.model_validate(content).window.composition is None
