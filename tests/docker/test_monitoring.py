"""The monitoring beside replicas in Docker: what runs, what it is told, and that a stop is planned.

The images are stand-ins with Debian's programs (tests/docker/stand_ins.py): no registry is asked.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.config import PREFIX
from cluster.tigerbeetle import waiting
from monitoring import stack
from tests.docker import stand_ins
from tests.docker.sandbox import DockerSandbox, best_engine, docker, docker_sandbox
from tests.leases import free_ports
from tests.monitoring.drill import INTERRUPTED

pytestmark = [
    pytest.mark.docker,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(stand_ins.missing()), reason=f"apt-get install {', '.join(stand_ins.missing())}"
    ),
    pytest.mark.random_order(disabled=True),  # the last one leaves the cluster stopped
]
PLANNED = "tb:replica:planned_stop"


@dataclass
class Watched:
    """A cluster in Docker and its monitoring, both of this test's own."""

    cluster: DockerSandbox
    port: int  # Prometheus'

    @property
    def project(self) -> str:
        return f"{self.cluster.project}-monitoring"

    @property
    def files(self) -> Path:
        return self.cluster.directory / "local" / "monitoring"

    def monitor(self, verb: str) -> str:
        done = self.cluster.pyinfra(f"tasks.monitoring.{verb}")
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    def lives(self) -> dict[str, str]:
        """Container → when it was started."""
        names = docker("ps", "--format={{.Names}}", f"--filter=name=^/{self.project}-").stdout
        inspect = ["inspect", "--format={{.State.StartedAt}}"]
        return {name: docker(*inspect, name).stdout for name in names.split()}

    def query(self, expression: str) -> list[str]:
        """The values of an instant query's vector; none while Prometheus only starts."""
        text = urllib.parse.urlencode({"query": expression})
        address = f"http://127.0.0.1:{self.port}/api/v1/query?{text}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
        except (urllib.error.URLError, ConnectionError):
            return []
        return [one["value"][1] for one in found]

    def until(self, expression: str, expected: list[str]) -> None:
        def observe() -> tuple[bool, str]:
            seen = self.query(expression)
            return seen == expected, f"{expression} = {seen}"

        waiting.wait_until(observe, what=f"{expected}", timeout_s=600)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    prometheus, grafana, *others = free_ports(6)
    ports = ",".join(map(str, (prometheus, *others)))
    with (
        stand_ins.mirror(tmp_path_factory.mktemp("images")) as registry,
        docker_sandbox(
            best_engine(), MONITORING_REGISTRY=registry, MONITORING_GRAFANA_PORT=str(grafana)
        ) as made,
    ):
        made.overrides[stack.PORTS_VARIABLE] = ports
        ip = made.environ[f"{PREFIX}0_IP"].rpartition(".")[0] + ".20"
        made.overrides[f"{PREFIX}STATSD"] = f"{ip}:8125"
        refused = made.pyinfra("tasks.monitoring.start")
        assert refused.returncode != 0
        assert "start the replicas first" in refused.stderr
        up = made.make("compose-tb-init")
        assert up.returncode == 0, up.stderr[-3000:]
        world = Watched(made, prometheus)
        world.monitor("start")
        yield world
        world.monitor("stop")
        assert world.lives() == {}
        docker("volume", "rm", f"{world.project}_prometheus-data", f"{world.project}_grafana-data")


def test_every_program_runs_and_every_target_is_scraped(watched: Watched) -> None:
    assert len(watched.lives()) == len(stand_ins.PROGRAMS)
    for job, count in {"tigerbeetle": 1, "tigerbeetle-port": 3, "host": 1, "process": 1}.items():
        watched.until(f'up{{job="{job}"}}', ["1"] * count)


def test_the_port_of_each_replica_is_seen_open(watched: Watched) -> None:
    watched.until("tb:replica:port_open", ["1"] * 3)


def test_the_replicas_metrics_arrive(watched: Watched) -> None:
    if best_engine() == "emulator":
        pytest.skip("the emulator emits no metrics: tigerbeetle on PATH, .ci/provision-docker base")
    watched.until("tb_replica_status == 0", ["0"] * 3)


def test_nothing_listens_beyond_loopback(watched: Watched) -> None:
    for name in watched.lives():
        inspected = json.loads(docker("inspect", name).stdout)[0]
        bound = [b for found in inspected["NetworkSettings"]["Ports"].values() for b in found or []]
        assert {b["HostIp"] for b in bound} <= {"127.0.0.1"}
        assert inspected["HostConfig"]["Privileged"] is False
        assert inspected["HostConfig"]["ReadonlyRootfs"] is True


def test_a_second_start_restarts_nothing(watched: Watched) -> None:
    before = watched.lives()
    watched.monitor("start")
    assert watched.lives() == before


def test_what_an_interrupted_start_has_written_is_read_by_prometheus_alone(
    watched: Watched, tmp_path: Path
) -> None:
    before = watched.lives()
    file, interrupted = watched.files / "prometheus.yml", tmp_path / "interrupted.py"
    interrupted.write_text(INTERRUPTED)
    with watched.cluster.having(**{f"{PREFIX}CLUSTER_ID": "7"}):
        assert watched.cluster.pyinfra(str(interrupted)).returncode == 0
        assert watched.lives() == before
        watched.monitor("start")
    after = watched.lives()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{watched.project}-prometheus-1"}
    seen = docker("exec", *changed, "cat", "/etc/prometheus/prometheus.yml").stdout
    assert f"{7:032x}" in seen
    assert seen == file.read_text()
    watched.monitor("start")
    watched.until("up{job='tigerbeetle'}", ["1"])


def stop(watched: Watched, target: str) -> None:
    done = watched.cluster.make(target)
    assert done.returncode == 0, done.stderr[-3000:]
    assert docker("ps", "-q", f"--filter=name=^/{watched.cluster.names[0]}$").stdout == ""


def test_make_down_is_a_planned_stop_until_the_cluster_commits_again(watched: Watched) -> None:
    watched.until(PLANNED, [])
    stop(watched, "down")
    watched.until(PLANNED, ["1"] * 3)
    up = watched.cluster.make("up")
    assert up.returncode == 0, up.stderr[-3000:]
    watched.until(PLANNED, [])
    watched.until("tb:replica:port_open", ["1"] * 3)


def test_a_replica_that_ends_by_itself_is_not_planned(watched: Watched) -> None:
    assert docker("kill", watched.cluster.names[1]).returncode == 0
    watched.until("sum(tb:replica:port_open)", ["2"])
    assert watched.query(PLANNED) == []
    assert watched.cluster.make("compose-tb-up").returncode == 0


def test_an_address_that_is_a_replica_s_is_refused(watched: Watched) -> None:
    taken = watched.cluster.environ[f"{PREFIX}1_IP"] + ":8125"
    with watched.cluster.having(**{f"{PREFIX}STATSD": taken}):
        refused = watched.cluster.pyinfra("tasks.monitoring.start")
    assert refused.returncode != 0
    assert "STATSD: expected a free address of" in refused.stderr


def test_compose_tb_down_is_a_planned_stop_too(watched: Watched) -> None:
    watched.until(PLANNED, [])
    stop(watched, "compose-tb-down")
    watched.until(PLANNED, ["1"] * 3)
