"""Load history: what is of one kind, what differs by more than its variation, and what is kept."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

from cluster import cli
from cluster.refusal import Refusal
from loadtests.report import load_history, trend
from loadtests.report.curve import Capacity
from loadtests.report.trend import CAPACITY_FIGURE, EARLIER_MAX, EARLIER_MIN, Entry, Measurement
from loadtests.run import runs
from loadtests.run.result import Audit, Manifest, Result
from tests.load.samples import STARTED, audit, manifest, result, second


def kept(number: int, *, p99: float = 20.0, per_s: float = 1000.0, **more: Any) -> Entry:
    """The ``number``-th run of a history, with some figures."""
    of = more.pop("manifest", None) or manifest(**more.pop("settings", {}))
    said = {"run": f"run-{number}", "started": STARTED + number} | more.pop("named", {})
    content: dict[str, Any] = {
        "manifest": of.model_copy(update=said),
        "duration_s": 18.0,
        "verdict": "passed",
        "is_whole": True,
        "p99_ms_bound": None,
        "figures": {"actions/s": per_s, "p50 ms": 2.0, "p99 ms": p99},
    }
    return Entry.model_validate(content | more)


USUAL = [kept(i, p99=p99) for i, p99 in enumerate([19.0, 20.5, 21.0, 19.5, 20.0, 20.2])]


def judged(last: Entry, before: list[Entry]) -> tuple[dict[str, str], int]:
    known = trend.measurements([*before, last])
    found = trend.judge(known[-1], trend.earlier(known[-1], known))
    return {one.name: one.meaning for one in found}, trend.exit_code(known[-1], found)


@pytest.mark.parametrize(
    ("figures", "meaning", "code"),
    [
        ({}, {"p99 ms": "no difference"}, 0),
        ({"p99": 22.0}, {"p99 ms": "no difference"}, 0),
        ({"p99": 26.0}, {"p99 ms": "worse"}, 3),
        ({"p99": 12.0}, {"p99 ms": "better"}, 0),
        ({"per_s": 900.0}, {"actions/s": "worse"}, 3),
        ({"per_s": 1100.0}, {"actions/s": "better"}, 0),
        ({"per_s": 0.0}, {"actions/s": "worse"}, 3),
        ({"p99": 12.0, "per_s": 900.0}, {"p99 ms": "better", "actions/s": "worse"}, 3),
        # The earlier ones did not vary at all: a hundredth more is no finding.
        ({"per_s": 990.0}, {"actions/s": "no difference"}, 0),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_difference_counts_beyond_the_variation_of_the_earlier_ones(
    figures: dict[str, float], meaning: dict[str, str], code: int
) -> None:
    found, exit_code = judged(kept(10, **figures), USUAL)
    assert {name: found[name] for name in meaning} == meaning
    assert exit_code == code


@pytest.mark.parametrize(
    ("last", "before", "code"),
    [
        (kept(10), USUAL[: EARLIER_MIN - 1], 4),
        (kept(10), [], 4),
        (kept(10, verdict="failed", p99=26.0), USUAL, 1),
        (kept(10, verdict="unknown"), USUAL, 4),
        (kept(10, verdict="not audited"), USUAL, 4),
        (kept(10, is_whole=False), USUAL, 4),
        (kept(10), [*USUAL[:4], kept(5, verdict="failed"), kept(6, is_whole=False)], 4),
        (kept(10), [*USUAL[:4], kept(5, settings={"users": 51})], 4),
        (kept(-1), USUAL, 4),  # the oldest of all has no earlier ones
    ],
    ids=[
        "four",
        "none",
        "failed",
        "unknown",
        "not audited",
        "not whole",
        "earlier ones not to be believed",
        "another kind",
        "the oldest",
    ],
)
def test_too_few_or_a_run_that_is_not_proven_is_never_taken_for_no_difference(
    last: Entry, before: list[Entry], code: int
) -> None:
    known = trend.measurements([*before, last])
    mine = next(one for one in known if one.runs == (last,))
    found = trend.judge(mine, trend.earlier(mine, known))
    assert trend.exit_code(mine, found) == code


def changed(**update: Any) -> Manifest:
    made = manifest()
    for name, value in update.items():
        part, field = name.split("_", 1)
        of_part = getattr(made, part).model_copy(update={field: value})
        made = made.model_copy(update={part: of_part})
    return made


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (kept(1), []),
        (kept(1, settings={"seed": 9}), []),
        (kept(1, manifest=changed(machine_host="another-runner")), []),
        (kept(1, manifest=changed(machine_python="3.13.0")), []),
        (kept(1, manifest=changed(target_cluster_id="8", target_inventory="a.py")), None),
        (kept(1, duration_s=17.0), []),
        (kept(1, duration_s=60.0), ["seconds measured: 18 / 60"]),
        (kept(1, settings={"users": 51}), ["setting users: 50 / 51"]),
        (kept(1, settings={"profile": "Spike"}), ["setting profile: steady / Spike"]),
        (kept(1, manifest=changed(target_release="0.17.10")), ["release: 0.17.9 / 0.17.10"]),
        (kept(1, manifest=changed(target_engine="tigerbeetle")), None),
        (kept(1, manifest=changed(machine_cpus=4)), None),
        (kept(1, manifest=changed(target_addresses="10.0.0.1:3000")), None),
        (kept(1, p99_ms_bound=100.0), None),
    ],
)
def test_of_one_kind_is_the_same_scenario_machine_and_release(
    other: Entry, told: list[str] | None
) -> None:
    found = trend.differences(kept(0), other)
    assert found if told is None else found == told


def test_a_cluster_of_an_inventory_may_be_made_anew() -> None:
    """In CI its id and its addresses are new each time."""
    inventory = {"target_inventory": "inventories/ci.py"}
    one = kept(0, manifest=changed(**inventory, target_cluster_id="7"))
    other = changed(**inventory, target_cluster_id="8", target_addresses="10.0.0.9:3000")
    assert trend.differences(one, kept(1, manifest=other)) == []


def test_the_probe_s_start_is_no_part_of_a_search_s_kind_and_its_bound_is() -> None:
    one = kept(0, p99_ms_bound=100.0, settings={"rate": 500.0}, duration_s=90.0)
    assert not trend.differences(
        one, kept(1, p99_ms_bound=100.0, settings={"rate": 50.0}, duration_s=300.0)
    )
    assert trend.differences(one, kept(1, p99_ms_bound=50.0, settings={"rate": 500.0}))


def test_repeated_runs_are_one_measurement() -> None:
    group = {"group": "five"}
    runs_of = [kept(i, p99=p99, named=group) for i, p99 in enumerate([10.0, 40.0])]
    [one] = trend.measurements(runs_of)
    assert (one.name, one.verdict) == ("five", "passed")
    assert one.figures["p99 ms"] == pytest.approx(20.0)
    unproven = Measurement((*runs_of, kept(3, verdict="unknown", named=group)))
    assert unproven.verdict == "unknown"
    assert not unproven.is_whole


def test_only_the_latest_are_what_is_usual() -> None:
    old = [kept(i, p99=200.0) for i in range(30)]
    new = [kept(100 + i, p99=20.0 + i % 3) for i in range(EARLIER_MAX)]
    found, code = judged(kept(999, p99=30.0), [*old, *new])
    assert (found["p99 ms"], code) == ("worse", 3)


def test_an_unchanged_load_is_seldom_called_worse_and_a_third_slower_one_mostly() -> None:
    """As loads vary: p99 by a tenth, from measurement to measurement."""
    random_ = random.Random(5)

    def share(of: str, factor: float) -> float:
        hits = 0
        for _ in range(400):
            before = [kept(i, p99=20 * random_.lognormvariate(0, 0.1)) for i in range(10)]
            last = kept(10, p99=20 * factor * random_.lognormvariate(0, 0.1))
            hits += judged(last, before)[0]["p99 ms"] == of
        return hits / 400

    assert share("worse", 1.0) < 0.02
    assert share("worse", 1.5) > 0.6


@pytest.mark.parametrize(
    ("freedom", "table"), [(4, 4.604), (5, 4.032), (9, 3.250), (19, 2.861), (1000, 2.581)]
)
def test_the_range_is_student_s(freedom: int, table: float) -> None:
    assert trend.student(freedom) == pytest.approx(table, rel=0.015)
    assert trend.student(10**9) == pytest.approx(NormalDist().inv_cdf(0.995), rel=1e-4)


# -- what is kept ------------------------------------------------------------------------------


def at(milliseconds: float) -> Result:
    return result([second(STARTED + 1 + i, milliseconds) for i in range(5)])


@pytest.mark.parametrize(
    ("search", "figures", "is_whole"),
    [
        (None, {"actions/s", "p50 ms", "p99 ms"}, True),
        (Capacity(p99_ms=100, knee=6975, verdict="found"), {CAPACITY_FIGURE}, True),
        (Capacity(p99_ms=100, verdict="none"), {CAPACITY_FIGURE}, True),
        (Capacity(p99_ms=100, knee=333), {CAPACITY_FIGURE}, False),
    ],
    ids=["load", "found", "none", "disturbed"],
)
def test_of_a_search_its_answer_is_kept(
    search: Capacity | None, figures: set[str], is_whole: bool
) -> None:
    made = at(5.0).model_copy(update={"faults": []})
    found = trend.entry(made, audit(), search)
    assert (set(found.figures), found.is_whole, found.verdict) == (figures, is_whole, "passed")
    assert Entry.model_validate_json(found.model_dump_json()) == found


def test_a_run_with_a_fault_or_without_a_worker_is_not_whole() -> None:
    assert not trend.entry(at(5.0), audit(), None).is_whole  # a sample has a fault
    missing = at(5.0).model_copy(update={"faults": [], "complete": False})
    assert not trend.entry(missing, audit(), None).is_whole


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def leave(
    directory: Path, number: int, milliseconds: float, verdict: str | None = "passed"
) -> Path:
    """What a run leaves behind."""
    run = directory / f"run-{number}"
    run.mkdir(parents=True)
    said = {"run": run.name, "started": STARTED + 100 * number}
    made = at(milliseconds)
    of = made.manifest.model_copy(update=said)
    made = made.model_copy(update={"manifest": of, "faults": []})
    runs.write_json(run / "run.json", of.model_dump_json())
    runs.write_json(run / "result.json", made.model_dump_json())
    if verdict:
        found: Audit = audit(verdict)
        runs.write_json(run / "audit.json", found.model_dump_json())
    return run


def history(*arguments: str) -> int:
    return cli.main(["load-history", *arguments])


def test_the_last_run_is_judged_and_all_are_kept_when_their_directories_are_gone(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, milliseconds in enumerate([10.0, 10.5, 9.5, 10.2, 9.8]):
        leave(directory, number, milliseconds)
    assert history("--run", "run-4") == 4
    assert "4 earlier of the same scenario, machine and release, 5 are needed" in (
        capsys.readouterr().out
    )
    for number in range(5):
        for file in (directory / f"run-{number}").iterdir():
            file.unlink()
    leave(directory, 5, 10.1)
    assert history("--run", "run-5") == 0
    leave(directory, 6, 30.0)
    assert history("--run", "run-6") == 3
    said = capsys.readouterr().out
    assert "load-history: worse: run-6 of cluster" in said
    html = (directory / "load-history.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "http" not in html
    assert len((directory / "load-history.jsonl").read_text(encoding="utf-8").splitlines()) == 7


def test_a_file_of_one_s_own_keeps_them(directory: Path, tmp_path: Path) -> None:
    leave(directory, 0, 10.0)
    file = tmp_path / "kept.jsonl"
    assert history("--run", "run-0", "--history", str(file)) == 4
    assert [json.loads(line)["manifest"]["run"] for line in file.read_text().splitlines()] == [
        "run-0"
    ]
    assert not (directory / "load-history.jsonl").exists()


def test_a_run_that_is_audited_later_is_kept_as_audited(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = leave(directory, 0, 10.0, verdict=None)
    assert history("--run", "run-0") == 4
    assert "not audited. Fix: make audit" in capsys.readouterr().out
    runs.write_json(run / "audit.json", audit("failed").model_dump_json())
    assert history("--run", "run-0") == 1
    assert "audit failed: run-0" in capsys.readouterr().out


def test_a_run_that_was_cut_off_is_unknown(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (leave(directory, 0, 10.0) / "result.json").unlink()
    assert history("--run", "run-0") == 4
    assert "run-0 was cut off" in capsys.readouterr().out


def test_an_earlier_run_that_cannot_be_read_is_named_and_left_out(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (leave(directory, 0, 10.0) / "result.json").write_text("{")
    leave(directory, 1, 10.0)
    assert history("--run", "run-1") == 4
    assert "run-0 is left out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", '{"figures": {}}'])
def test_a_history_that_cannot_be_read_is_refused_and_not_written_over(
    directory: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(directory, 0, 10.0)
    file = directory / load_history.FILE
    file.write_text(content, encoding="utf-8")
    assert history("--run", "run-0") == 2
    assert "load-history.jsonl: expected what a run writes" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == content


def test_a_history_that_cannot_be_written_is_refused(directory: Path, tmp_path: Path) -> None:
    leave(directory, 0, 10.0)
    with pytest.raises(Refusal, match="HISTORY: expected"):
        load_history.write(tmp_path / "no" / "such" / "file.jsonl", USUAL)
