"""Recovery times from a history made by hand: the gap that touches the fault, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.report import recovery_report
from loadtests.report.recovery import Recoveries, Strike, measure, table
from loadtests.run.history import History, Operation

S = 1_000_000_000


def answered(*seconds: float) -> History:
    return History(
        tuple(
            Operation(
                number=number,
                worker=0,
                session=0,
                kind="create_transfers",
                action="pay",
                invoked=int((at - 0.01) * S),
                completed=int(at * S),
                outcome="ok",
                statuses=("created",),
            )
            for number, at in enumerate(seconds)
        )
    )


def strike(broken: float, healing: float, gated: float) -> Strike:
    return Strike(
        fault="kill",
        victims=[1],
        deployment="process",
        broken=int(broken * S),
        healing=int(healing * S),
        gated=int(gated * S),
    )


@pytest.mark.parametrize(
    ("answers", "gap_s"),
    [
        ([1, 2, 3, 4, 5], 1.0),
        ([1, 9.5, 12, 12.1, 20], 2.5),  # what is far before and far behind does not count
        ([9, 14, 15], 5.0),  # it began before the fault
        ([9, 10.5, 19, 19.1], 8.5),  # it ended behind the gate
        ([], 0.0),
    ],
)
def test_the_gap_is_the_longest_one_that_touches_the_fault(
    answers: list[float], gap_s: float
) -> None:
    broken, healing, gated = (2, 3, 4) if gap_s == 1.0 else (10, 11, 12)
    assert measure(strike(broken, healing, gated), answered(*answers)).gap_s == gap_s


def test_only_what_was_answered_while_it_was_broken_counts_as_meanwhile() -> None:
    found = measure(strike(10, 12, 14), answered(9, 10, 11, 11.9, 12, 13))
    assert (found.answered, found.acknowledged) == (3, 3)


def test_the_table_has_a_row_for_each_fault_of_each_deployment() -> None:
    one = measure(strike(10, 12, 14), answered(9, 11, 13))
    other = one.model_copy(update={"gap_s": 4.0})
    elsewhere = one.model_copy(update={"deployment": "local"})
    rows = table([one, other, elsewhere])
    assert [row[:3] for row in rows] == [("process", "kill", 2), ("local", "kill", 1)]
    assert rows[0][3] == "3.00 / 4.00 s"


def test_the_report_shows_every_strike_and_names_a_failed_history(tmp_path: Path) -> None:
    struck = [measure(strike(10, 12, 14), answered(9, 11, 13))]
    found = Recoveries(
        label="TigerBeetle",
        release="0.17.9",
        started=0,
        strikes=struck,
        verdicts={"run-0": "passed", "run-1": "failed"},
        checked=3,
        acknowledged=3,
    )
    recovery_report.write(tmp_path, found)
    page = (tmp_path / "report.html").read_text()
    assert '<span class="badge failed">failed</span>' in page
    assert "<title>kill (process): 2.00 s</title>" in page
    assert "TigerBeetle" in page
    assert "http" not in page
    assert json.loads((tmp_path / "recovery.json").read_text())["strikes"][0]["gap_s"] == 2.0
    assert any("kill" in line and "2.00 / 2.00 s" in line for line in recovery_report.lines(found))
