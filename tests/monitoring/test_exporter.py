"""The servers' node exporter: who scrapes it, where it listens, which server cannot have one."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from cluster.config.deployment import Deployment
from cluster.refusal import Refusal
from monitoring import exporter, host
from tests.monitoring import documents
from tests.monitoring.samples import BARE, EXPORTING, OF, PORTS


def test_the_servers_disks_and_clocks_are_scraped_where_that_is_asked_for() -> None:
    def scraped(of: Deployment) -> list[list[str]]:
        read = documents.parse(host.configuration(of, PORTS)["prometheus.yml"])
        hosts = (j for j in read["scrape_configs"] if j["job_name"] == "host")
        return [target["targets"] for job in hosts for target in job["static_configs"]]

    assert scraped(OF) == []
    assert scraped(EXPORTING) == [["10.1.0.10:9100", "10.1.0.11:9100", "10.1.0.12:9100"]]


def test_the_node_exporter_listens_at_its_replica_s_address_alone() -> None:
    unit = exporter.unit(EXPORTING, 1)
    assert re.findall(r"--web.listen-address=(\S+)", unit) == ["10.1.0.11:9100"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"programs": frozenset()}, "expected prometheus-node-exporter on PATH, or apt-get"),
        (
            {"listening": {("tcp", "*:9100")}},
            r"expected tcp 10\.1\.0\.11:9100 to be free, found so",
        ),
    ],
)
def test_a_server_that_cannot_have_a_node_exporter_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(Refusal, match=f"replica 1's server: {expected}.* Fix: "):
        exporter.check(EXPORTING, 1, dataclasses.replace(BARE, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"programs": frozenset({exporter.PACKAGE})},
        {"running": {exporter.UNIT: "x"}, "listening": {("tcp", "10.1.0.11:9100")}},
        {"listening": {("tcp", "127.0.0.1:9100")}},
    ],
)
def test_a_server_that_can_have_one_is_let_be(changes: dict[str, Any]) -> None:
    exporter.check(EXPORTING, 1, dataclasses.replace(BARE, **changes))
