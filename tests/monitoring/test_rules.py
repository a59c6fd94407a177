"""Every alert is complete, tested, and fires in its tests because of itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster import REPOSITORY
from monitoring import stack
from tests.monitoring import documents

RULES = stack.FILES / "rules"
TESTS = sorted((stack.FILES / "tests").glob("*.yml"))
ALERTS: list[dict[str, Any]] = [
    rule for group in documents.read(RULES / "alerts.yml")["groups"] for rule in group["rules"]
]
NAMES = [alert["alert"] for alert in ALERTS]

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def run_promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@promtool
def test_the_rules_are_valid() -> None:
    done = run_promtool("check", "rules", RULES / "states.yml", RULES / "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_alerts_do_what_their_tests_say() -> None:
    done = run_promtool("test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def _copied(directory: Path, alerts: str) -> list[Path]:
    """The tests and rules in a directory of their own, with other alerts."""
    (directory / "rules").mkdir()
    (directory / "tests").mkdir()
    shutil.copy(RULES / "states.yml", directory / "rules")
    (directory / "rules" / "alerts.yml").write_text(alerts)
    return [Path(shutil.copy(test, directory / "tests")) for test in TESTS]


@promtool
@pytest.mark.parametrize(
    "expression",
    [
        pytest.param("vector(0) > 1", id="never"),
        pytest.param("vector(1)", id="always", marks=pytest.mark.long),
    ],
)
def test_an_alert_that_fires_never_or_always_fails_its_own_tests(
    expression: str, tmp_path: Path
) -> None:
    document = documents.read(RULES / "alerts.yml")
    for group in document["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expression
            rule.pop("for", None)
    done = run_promtool("test", "rules", *_copied(tmp_path, documents.write(document)))
    failed = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert done.returncode == 1
    assert failed == set(NAMES)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_what_and_what_first(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "meaning", "first_step", "runbook"}


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_s_page_is_there_and_names_it(alert: dict[str, Any]) -> None:
    page = (REPOSITORY / alert["annotations"]["runbook"]).read_text()
    assert f"`{alert['alert']}`" in page


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_in_the_table_for_people(name: str) -> None:
    assert f"`{name}`" in (REPOSITORY / "docs/monitoring.md").read_text()


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_what_an_alert_tells_to_type_exists(alert: dict[str, Any]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", alert["annotations"]["first_step"]):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_page_belongs_to_an_alert_or_is_listed() -> None:
    runbooks = REPOSITORY / "docs/runbooks"
    pages = {str(page.relative_to(REPOSITORY)) for page in runbooks.glob("*")}
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (runbooks / "README.md").read_text())
    others = {f"docs/runbooks/{name}" for name in ["README.md", *listed]}
    assert pages == {alert["annotations"]["runbook"] for alert in ALERTS} | others


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    cases = [
        case
        for test in TESTS
        for one in documents.read(test)["tests"]
        for case in one.get("alert_rule_test", []) + one.get("promql_expr_test", [])
    ]
    fires = [c for c in cases if c.get("alertname") == name and c["exp_alerts"]]
    silent = [
        c
        for c in cases
        if (c.get("alertname") == name and not c["exp_alerts"])
        or ("ALERTS" in c.get("expr", "") and not any(name in str(s) for s in c["exp_samples"]))
    ]
    assert fires and silent
