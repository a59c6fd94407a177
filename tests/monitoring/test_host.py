"""The monitoring host: what it is given, and what is refused before it is touched."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster.config.deployment import Deployment
from cluster.health import planned_stop
from cluster.refusal import Refusal
from cluster.tigerbeetle.waiting import wait_until
from monitoring import exporter, host
from monitoring.host import Observation
from tests.leases import free_ports
from tests.monitoring import documents
from tests.monitoring.samples import BARE, EXPORTING, IP, OF, PORTS, deployment
from tests.monitoring.test_rules import promtool, run_promtool


def test_it_is_reached_as_the_servers_are_under_its_own_name() -> None:
    reached = host.place(OF)
    assert reached
    assert (reached.hostname, reached.user, reached.sudo) == ("watch.example.com", "admin", True)


def test_servers_without_a_monitoring_host_are_refused() -> None:
    with pytest.raises(Refusal, match=r"monitoring_host: expected the SSH name .* Fix: name"):
        host.place(deployment(monitoring_host=""))


def test_a_bare_debian_is_fit() -> None:
    host.check(OF, BARE, PORTS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"systemd": ""}, "expected systemd 247 or newer, found none"),
        ({"systemd": "237"}, "expected systemd 247 or newer, found 237"),
        ({"python": "3.9.2"}, r"expected Python 3\.11 or newer.* found 3\.9\.2"),
        ({"python": ""}, r"expected Python 3\.11 or newer.* found none"),
        ({"programs": frozenset({"prometheus"})}, "or apt-get to install them, found neither"),
        ({"addresses": frozenset({"10.1.0.21"})}, rf"the address {IP} of LU_CFG_TIGERBEETLE_ST"),
        ({"listening": {("udp", "0.0.0.0:8125")}}, rf"expected udp {IP}:8125 to be free"),
        ({"listening": {("udp", f"{IP}:8125")}}, rf"expected udp {IP}:8125 to be free"),
        ({"listening": {("tcp", "*:9090")}}, r"expected tcp 127\.0\.0\.1:9090 to be free"),
        ({"listening": {("tcp", "127.0.0.1:9102")}}, "found somebody listening at 127"),
        ({"listening": {("tcp", "[::]:9115")}}, r"expected tcp 127\.0\.0\.1:9115 to be free"),
        ({"running": {"blackbox": "x"}, "cluster": "0" * 32}, "no monitoring of another cluster"),
    ],
)
def test_what_is_not_fit_is_refused_in_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(Refusal, match=expected) as refused:
        host.check(OF, dataclasses.replace(BARE, **changes), PORTS)
    assert ". Fix: " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"programs": frozenset(host.PACKAGES)},  # no apt-get, and nothing to install
        {"listening": {("tcp", f"{IP}:9090"), ("tcp", "127.0.0.1:8125")}},  # elsewhere
        {"running": {"prometheus": "x"}, "listening": {("tcp", "127.0.0.1:9090")}},  # its own
        {"running": {}, "cluster": "0" * 32},  # of one that is stopped
        {"running": {"blackbox": "x"}, "cluster": f"{0xAB:032x}"},
    ],
)
def test_what_is_in_nobody_s_way_is_let_be(changes: dict[str, Any]) -> None:
    host.check(OF, dataclasses.replace(BARE, **changes), PORTS)


def test_an_address_for_prometheus_that_is_not_the_host_s_is_refused() -> None:
    with pytest.raises(Refusal, match=r"the address 192\.0\.2\.7 of monitoring_bind"):
        host.check(deployment(monitoring_bind="192.0.2.7"), BARE, PORTS)


def test_only_what_is_not_there_is_installed() -> None:
    assert host.missing(BARE) == list(host.PACKAGES)
    assert host.missing(dataclasses.replace(BARE, programs=frozenset(host.PACKAGES))) == []


def test_what_the_script_prints_is_read() -> None:
    seen = host.parse(
        [
            "systemd 252",
            "python 3.11.2",
            "address 127.0.0.1",
            f"address {IP}",
            "program apt-get",
            "listening tcp 0.0.0.0:22",
            "running prometheus 0123",
            "running collector",
            "cluster ab",
            "grafana yes",
        ]
    )
    assert seen == dataclasses.replace(
        BARE, cluster="ab", has_grafana=True, running={"prometheus": "0123", "collector": ""}
    )


def test_the_script_runs_on_this_machine_and_changes_nothing() -> None:
    done = subprocess.run(
        ["sh", "-c", host.command()], capture_output=True, text=True, timeout=60, check=True
    )
    seen = host.parse(done.stdout.splitlines())
    assert "127.0.0.1" in seen.addresses or shutil.which("ip") is None
    assert seen.python or shutil.which("python3") is None
    assert ("apt-get" in seen.programs) == (shutil.which("apt-get") is not None)


@promtool
@pytest.mark.parametrize(
    "settings",
    [{}, {"engine": "emulator"}, {"node_exporter": True}, {"alertmanagers": ["a:1", "b:2"]}],
    ids=str,
)
def test_prometheus_accepts_its_configuration(settings: dict[str, Any], tmp_path: Path) -> None:
    for name, text in host.configuration(deployment(**settings), PORTS).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run_promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 rule files found" in done.stdout


def test_alerts_go_to_the_alertmanagers_that_are_named_and_to_nobody_else() -> None:
    def told(of: Deployment) -> object:
        return documents.parse(host.configuration(of, PORTS)["prometheus.yml"]).get("alerting")

    assert told(OF) is None
    targets = ["10.0.0.30:9093", "alerts.example.com:9093"]
    assert told(deployment(alertmanagers=targets)) == {
        "alertmanagers": [{"static_configs": [{"targets": targets}]}]
    }


def test_each_replica_s_port_is_probed_at_its_own_address() -> None:
    read = documents.parse(host.configuration(OF, PORTS)["prometheus.yml"])
    (probe,) = (j for j in read["scrape_configs"] if j["job_name"] == "tigerbeetle-port")
    assert [s["targets"] for s in probe["static_configs"]] == [
        ["10.1.0.10:3000"],
        ["10.1.0.11:3000"],
        ["10.1.0.12:3000"],
    ]


def commands(of: Deployment) -> str:
    return "\n".join(re.findall("^ExecStart=.*", "\n".join(host.units(of, PORTS).values()), re.M))


def test_everything_listens_on_loopback_but_the_collector_for_the_replicas() -> None:
    listening = re.findall(r"--(?:statsd|listen|web.listen-address)=(\S+)", commands(OF))
    assert sorted(listening) == sorted(
        [f"{IP}:8125", "127.0.0.1:9102", "127.0.0.1:9090", "127.0.0.1:9115"]
    )


def test_prometheus_listens_where_it_was_asked_to_and_nothing_else_does() -> None:
    asked = commands(deployment(monitoring_bind=IP))
    assert f"--web.listen-address={IP}:9090" in asked
    assert asked.count(IP) == 2


WRITTEN = host.units(OF, PORTS) | {exporter.UNIT: exporter.unit(EXPORTING, 0)}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_each_unit_is_hardened(name: str, tmp_path: Path) -> None:
    unit = tmp_path / host.unit(name)
    unit.write_text(WRITTEN[name])
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Unknown" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file offline: needs 250")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr


def running(of: Deployment) -> Observation:
    """All units as they would run after a deploy."""
    marks = {
        name: re.findall(r"^Environment=WALLET_SERVICE_SETTINGS=(\w+)$", text, re.M)[0]
        for name, text in host.units(of, PORTS).items()
    }
    return dataclasses.replace(BARE, running=marks)


def test_what_runs_as_described_is_left_alone() -> None:
    assert host.stale(running(OF), host.units(OF, PORTS)) == []


def test_what_does_not_run_is_started() -> None:
    assert host.stale(BARE, host.units(OF, PORTS)) == list(host.UNITS)


@pytest.mark.parametrize(
    ("changed", "restarted"),
    [
        (deployment(monitoring_bind=IP), ["prometheus"]),
        (deployment(engine="emulator"), list(host.UNITS)),  # each names the engine
        (
            OF.model_copy(update={"cluster": OF.cluster.model_copy(update={"id": 7})}),
            ["prometheus"],
        ),
    ],
)
def test_only_what_reads_a_changed_setting_is_restarted(
    changed: Deployment, restarted: list[str]
) -> None:
    assert host.stale(running(OF), host.units(changed, PORTS)) == restarted


def test_the_shipped_collector_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "collector"
    program.write_bytes(host.collector())
    statsd, listen = free_ports(2)
    process = subprocess.Popen(
        # -I: neither this environment's packages nor the current directory
        [
            sys.executable,
            "-I",
            "-S",
            str(program),
            f"--statsd=127.0.0.1:{statsd}",
            f"--listen=127.0.0.1:{listen}",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "StatsD at" in process.stdout.readline()
        cluster = OF.cluster.model_copy(update={"statsd": f"127.0.0.1:{statsd}"})
        planned_stop.announce(cluster, [1], is_planned=True)

        def scrape() -> tuple[bool, str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{listen}/metrics", timeout=10) as page:
                text = page.read().decode()
            return f'tb_planned_stop{{cluster="{0xAB:032x}",replica="1"}} 1.0' in text, text

        wait_until(scrape, what="the datagram", timeout_s=200)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_equal_sources_make_an_equal_collector() -> None:
    assert host.collector() == host.collector()


def test_grafana_s_package_is_given_paths_and_addresses_of_its_own_host() -> None:
    given = host.grafana(deployment(monitoring_bind=IP), PORTS)
    (source,) = documents.parse(given["/etc/grafana/provisioning/datasources/tigerbeetle.yml"])[
        "datasources"
    ]
    assert source["url"] == f"http://{IP}:9090"
    (provider,) = documents.parse(given["/etc/grafana/provisioning/dashboards/tigerbeetle.yml"])[
        "providers"
    ]
    directory = provider["options"]["path"]
    boards = {p for p in given if p.startswith(f"{directory}/")}
    assert {Path(p).name for p in boards} == {"cluster.json", "load.json"}
