"""Dashboards ask only for what is really there: every query parses, every metric was recorded."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.operate.backup import outcomes
from cluster.operate.backup.outcomes import Expected, Taken, Verified
from monitoring import stack
from tests.monitoring import documents
from tests.monitoring.test_rules import promtool, run_promtool

DASHBOARDS = sorted((stack.FILES / "grafana" / "dashboards").glob("*.json"))
GRAFANA = stack.FILES / "grafana"
SCRAPE = (Path(__file__).parent / "fixtures" / "scrape.prom").read_text()
RECORDED = set(re.findall(r"^(\w+)[{ ]", SCRAPE, re.MULTILINE)) | {"ALERTS", "up"}
STATES = [
    rule
    for group in documents.read(stack.FILES / "rules" / "states.yml")["groups"]
    for rule in group["rules"]
]
NOW = datetime.now(UTC)
#: Known from configuration or from people, so not in a scrape.
TOLD = {"tb:replica:expected", "tb_planned_stop"}
#: Noted of backups, by the code itself.
NOTED = {
    f"{outcomes.METRIC}{name}"
    for name, _ in outcomes.values(
        Taken(name="a", at=NOW),
        Verified(name="a", at=NOW, passed=False, passed_at=NOW, restore_s=1, behind_s=1),
        Expected(since=NOW, backup_s=1, verify_s=1),
    )
}
METRIC = re.compile(
    r"(?<![\w:\"$.])"
    r"(tb[_:][\w:]+|wallet_service_\w+|node_\w+|namedprocess_\w+|probe_\w+|ALERTS|up)\b"
)
KNOWN = RECORDED | {rule["record"] for rule in STATES} | TOLD | NOTED


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


QUERIES = [
    pytest.param(target["expr"], id=f"{dashboard.stem}: {panel['title']} {target['refId']}")
    for dashboard in DASHBOARDS
    for panel in panels(dashboard)
    for target in panel["targets"]
]
EXPRESSIONS = [
    rule["expr"]
    for name in ("states.yml", "alerts.yml")
    for group in documents.read(stack.FILES / "rules" / name)["groups"]
    for rule in group["rules"]
]


@promtool
def test_every_query_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"q:{i}".replace(":", "_"), "expr": str(query.values[0])}
        for i, query in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(documents.write({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = run_promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUERIES)} rules found" in done.stdout


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_of_a_query_exists(query: str) -> None:
    metrics = set(METRIC.findall(query))
    assert metrics
    assert metrics <= KNOWN


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_a_rule_exists(expression: str) -> None:
    metrics = set(METRIC.findall(expression))
    assert metrics
    assert metrics <= KNOWN


def test_a_metric_that_is_chosen_by_a_pattern_exists() -> None:
    patterns = re.findall(r'__name__=~"(.*?)"', "".join(EXPRESSIONS))
    assert patterns
    for pattern in patterns:
        assert len({name for name in NOTED if re.fullmatch(pattern, name)}) == 2


def test_a_metric_that_is_misspelt_would_be_found() -> None:
    assert METRIC.findall('max(tb_replica_statsu{cluster="c"})') == ["tb_replica_statsu"]
    assert "tb_replica_statsu" not in RECORDED


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.stem)
def test_a_dashboard_is_one_that_grafana_can_provision(dashboard: Path) -> None:
    board = json.loads(dashboard.read_text())
    file = GRAFANA / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = documents.read(file)["datasources"]
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 36
    assert {p["datasource"]["uid"] for p in board["panels"]} == {source["uid"]}
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    assert all(p["title"] and p["targets"] for p in board["panels"])


def test_no_two_panels_lie_on_one_another() -> None:
    for dashboard in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in panels(dashboard):
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken and at["x"] + at["w"] <= 24
            taken |= cells


def test_the_cluster_s_dashboard_shows_what_an_operator_needs() -> None:
    titles = " ".join(p["title"].lower() for p in panels(GRAFANA / "dashboards" / "cluster.json"))
    for word in (
        "status",
        "view changes",
        "commits",
        "behind",
        "latency",
        "cache",
        "disk",
        "memory",
        "clock",
        "backup",
    ):
        assert word in titles


def test_the_recorded_scrape_is_one() -> None:
    lines = [line for line in SCRAPE.splitlines() if not line.startswith("#")]
    assert len(lines) > 200
    assert all(re.fullmatch(r"\w+(\{.*\})? [0-9.e+-]+", line) for line in lines)
