"""The gate: thresholds met, missed and not measured, and the exit codes of all that."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import REPOSITORY
from cluster.refusal import Refusal
from loadtests.report import gate
from loadtests.report.gate import Gate, Thresholds
from tests.load.samples import STARTED, audit, result, second


def test_the_published_example_is_valid_and_met_by_a_good_run() -> None:
    example = gate.read(REPOSITORY / "loadtests" / "gate.toml")
    findings = gate.judge(example, result())
    assert len(findings) > 5
    assert all(finding.met for finding in findings)


@pytest.mark.parametrize(
    ("threshold", "met"),
    [
        (Gate(p99_ms=100), True),
        (Gate(p99_ms=1), False),
        (Gate(p50_ms=3.9, p95_ms=7), False),
        (Gate(throughput_min=50), True),
        (Gate(throughput_min=5000), False),
        (Gate(transfers_min=5000), False),
        (Gate(error_percent=0), True),
        (Gate(rejected_percent=0), True),
        (Gate(drops=0), True),
        (Gate(actions={"pay": Thresholds(p99_ms=1)}), False),
        (Gate(actions={"pay": Thresholds(p99_ms=100)}), True),
    ],
    ids=lambda value: repr(value.model_dump(exclude_unset=True)) if isinstance(value, Gate) else "",
)
def test_a_threshold_is_judged(threshold: Gate, met: bool) -> None:
    findings = gate.judge(threshold, result())
    assert findings
    assert all(finding.met for finding in findings) is met


def test_unknown_outcomes_count_as_errors_and_rejections_do_not() -> None:
    seconds = [second(STARTED + i, 2, ok=98, unknown=1, rejected=1) for i in range(5)]
    findings = gate.judge(Gate(error_percent=0.5, rejected_percent=0.5), result(seconds))
    assert [(f.what, f.met, round(f.found or 0, 3)) for f in findings] == [
        ("error_percent", False, 1.0),
        ("rejected_percent", False, 1.0),
    ]


@pytest.mark.parametrize("bound", ["p50_ms", "p99_ms", "error_percent", "rejected_percent"])
def test_a_figure_that_was_not_measured_is_unknown_not_met(bound: str) -> None:
    nothing = result([second(STARTED + 1, 2, ok=0)])
    assert nothing.window.latency.p99_ms is None
    assert [f.met for f in gate.judge(Gate.model_validate({bound: 100.0}), nothing)] == [None]


def test_an_action_that_never_happened_is_unknown_not_met() -> None:
    findings = gate.judge(Gate(actions={"exchange": Thresholds(p99_ms=5)}), result())
    assert [finding.met for finding in findings] == [None]


@pytest.mark.parametrize(
    ("verdict", "threshold", "code"),
    [
        ("passed", Gate(p99_ms=100), 0),
        ("passed", Gate(p99_ms=1), 3),
        ("failed", Gate(p99_ms=100), 1),
        ("failed", Gate(p99_ms=1), 1),
        ("unknown", Gate(p99_ms=100), 4),
        ("unknown", Gate(p99_ms=1), 4),
        ("passed", Gate(actions={"exchange": Thresholds(p99_ms=5)}), 4),
        (None, Gate(p99_ms=100), 4),
    ],
)
def test_each_outcome_has_its_own_exit_code(
    verdict: str | None, threshold: Gate, code: int
) -> None:
    findings = gate.judge(threshold, result())
    assert gate.exit_code(audit(verdict) if verdict else None, findings) == code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gate]\np99 = 5\n", "gate.p99: Extra inputs"),
        ("[gate]\np99_ms = -5\n", "gate.p99_ms: Input should be greater than 0, found -5"),
        ("[gate]\np99_ms = 'fast'\n", "gate.p99_ms"),
        ("[gate]\nerror_percent = 101\n", "less than or equal to 100"),
        ("[gate.actions.pay]\nspeed = 1\n", "gate.actions.pay.speed"),
        ("p99_ms = 5\n", "expected one table [gate]"),
        ("", "expected one table [gate], found nothing"),
        ("[gate\n", "Fix: see loadtests/gate.toml"),
    ],
)
def test_a_wrong_gate_file_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(Refusal) as raised:
        gate.read(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_missing_gate_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No such file"):
        gate.read(tmp_path / "none.toml")
