"""What `make monitor-up` writes is accepted by the programs that read it; bad input is refused."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster import REPOSITORY, config
from cluster.config.deployment import Deployment, Engine, Runtime
from cluster.health import planned_stop
from cluster.refusal import Refusal
from monitoring import stack
from tests.clusters import Sandbox
from tests.monitoring import documents
from tests.monitoring.test_rules import promtool, run_promtool

READS = [*stack._READS.items()]


def deployment(
    statsd: str = "127.0.0.1:8125", engine: Engine = "tigerbeetle", runtime: Runtime = "process"
) -> Deployment:
    cluster = config.load(environ={f"{config.PREFIX}STATSD": statsd})
    return Deployment(
        name="x",
        engine=engine,
        runtime=runtime,
        cluster=cluster.on_loopback() if runtime == "process" else cluster,
        published=cluster.as_published().replicas if runtime == "compose" else (),
        state_dir=Path("/nowhere"),
    )


def rendered(source: str, of: Deployment, **addresses: str) -> str:
    """A template filled in as a deploy does."""
    ips = {r.index: f"172.20.0.1{r.index}" for r in of.cluster.replicas}
    read = stack.configuration(of, {"collector": "127.0.0.1:9102", **addresses}, ips)
    return read[source.removesuffix(".j2")]


@promtool
@pytest.mark.parametrize(
    "addresses", [{}, {"blackbox": "127.0.0.1:9115", "host": "h:9100", "process": "h:9256"}]
)
def test_prometheus_accepts_its_configuration(addresses: dict[str, str], tmp_path: Path) -> None:
    of = deployment()
    (tmp_path / "rules").mkdir()
    (tmp_path / "prometheus.yml").write_text(rendered("prometheus.yml.j2", of, **addresses))
    (tmp_path / "rules" / "expected.yml").write_text(rendered("rules/expected.yml.j2", of))
    done = run_promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_replica_is_expected_and_its_port_is_probed() -> None:
    of = deployment()
    (group,) = documents.parse(rendered("rules/expected.yml.j2", of))["groups"]
    cluster = "0" * 32
    assert [rule["labels"] for rule in group["rules"]] == [
        {"cluster": cluster, "replica": str(i)} for i in range(3)
    ]
    jobs = documents.parse(rendered("prometheus.yml.j2", of, blackbox="b:1"))["scrape_configs"]
    (probe,) = (job for job in jobs if job["job_name"] == "tigerbeetle-port")
    assert [s["targets"] for s in probe["static_configs"]] == [
        ["172.20.0.10:3000"],
        ["172.20.0.11:3001"],
        ["172.20.0.12:3002"],
    ]


def test_the_emulator_is_not_expected_to_say_anything() -> None:
    text = rendered("rules/expected.yml.j2", deployment(engine="emulator"))
    assert documents.parse(text)["groups"] == []


def test_an_exporter_that_is_not_there_is_left_out() -> None:
    here = stack.local_addresses(stack.Ports(), which=lambda name: None)
    assert here == {"collector": "127.0.0.1:9102"}
    jobs = documents.parse(rendered("prometheus.yml.j2", deployment()))["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["tigerbeetle"]
    programs = stack.programs(deployment(), stack.Ports(), which=lambda name: None)
    assert [program["name"] for program in programs] == ["collector"]


@pytest.mark.parametrize(
    ("statsd", "runtime"),
    [("", "process"), ("10.0.0.1:8125", "process"), ("", "compose"), ("127.0.0.1:8125", "compose")],
)
def test_an_address_that_replicas_cannot_reach_is_refused(statsd: str, runtime: Runtime) -> None:
    with pytest.raises(Refusal, match=r"STATSD: expected .* Fix: set it to \d"):
        stack.check_statsd(deployment(statsd, runtime=runtime))


@pytest.mark.parametrize(
    ("statsd", "runtime", "expected"),
    [
        ("127.0.0.1:8125", "process", ("127.0.0.1", 8125)),
        ("172.20.0.20:9000", "compose", ("172.20.0.20", 9000)),
    ],
)
def test_an_address_that_they_reach_is_taken(
    statsd: str, runtime: Runtime, expected: tuple[str, int]
) -> None:
    assert stack.check_statsd(deployment(statsd, runtime=runtime)) == expected


@pytest.mark.parametrize("ip", ["172.20.0.1", "172.20.0.11", "172.20.1.20", "10.0.0.1"])
def test_an_address_that_the_exporter_cannot_have_is_refused(ip: str) -> None:
    with pytest.raises(Refusal, match=r"STATSD: expected a free address of 172\.20\.0\.0/24"):
        stack.check_inside(deployment(f"{ip}:8125", runtime="compose"))


def test_a_free_address_of_the_subnet_is_taken() -> None:
    stack.check_inside(deployment("172.20.0.20:8125", runtime="compose"))


def test_the_ports_are_the_usual_ones_unless_all_five_are_given() -> None:
    assert stack.ports({}) == stack.Ports(9090, 9102, 9115, 9100, 9256)
    assert stack.ports({stack.PORTS_VARIABLE: "1,2,3,4,5"}) == stack.Ports(1, 2, 3, 4, 5)


@pytest.mark.parametrize("text", ["1", "1,2,3,4", "1,2,3,4,x", "1,2,3,4,70000", "0,1,2,3,4"])
def test_other_ports_are_refused(text: str) -> None:
    with pytest.raises(Refusal, match="five ports"):
        stack.ports({stack.PORTS_VARIABLE: text})


def test_monitoring_without_statsd_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    made = Sandbox("inventories/process.py", tmp_path, (1, 2, 3))
    done = made.pyinfra("tasks.monitoring.start")
    assert done.returncode != 0
    assert "LU_CFG_TIGERBEETLE_STATSD: expected where the replicas' metrics go" in (
        done.stdout + done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_planned_stop_without_statsd_is_refused(tmp_path: Path) -> None:
    made = Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3))
    done = made.run("python", "-m", "cluster", "planned-stop", "stop")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "LU_CFG_TIGERBEETLE_STATSD" in done.stderr


def test_a_planned_stop_of_a_replica_that_is_none_is_refused(tmp_path: Path) -> None:
    made = Sandbox("inventories/emulator.py", tmp_path, (1, 2, 3))
    done = made.run("python", "-m", "cluster", "planned-stop", "stop", "--replica", "7")
    assert done.returncode == 2
    assert "REPLICA: expected one of 0, 1, 2, found 7" in done.stderr


def test_a_planned_stop_is_announced_in_tigerbeetle_s_own_form() -> None:
    assert planned_stop.lines(0xAB, [0, 2], is_planned=True) == (
        b"tb.planned_stop:1|g|#cluster:000000000000000000000000000000ab,replica:0\n"
        b"tb.planned_stop:1|g|#cluster:000000000000000000000000000000ab,replica:2\n"
    )


@pytest.mark.docker
def test_compose_accepts_the_monitoring_file() -> None:
    environ = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "MONITORING_DIRECTORY": "/nowhere",
        "MONITORING_STATSD_IP": "172.20.0.20",
        "MONITORING_STATSD_PORT": "8125",
        "MONITORING_TEXTFILES": "/nowhere/textfiles",
        "MONITORING_NETWORK": "wallet-service_tigerbeetle-net",
    }
    command = ["docker", "compose", "-f", "docker-compose.monitoring.yaml"]
    done = subprocess.run(
        [*command, "--profile", "monitoring", "config", "--quiet"],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_port_of_the_monitoring_in_docker_is_published_on_loopback_alone() -> None:
    services = documents.read(REPOSITORY / "docker-compose.monitoring.yaml")["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_a_program_has_another_mark_exactly_if_what_it_reads_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = {name: shutil.copytree if place.is_dir() else shutil.copy for name, place in READS}
    copied = {name: Path(copies[name](place, tmp_path / name)) for name, place in READS}
    monkeypatch.setattr(stack, "_READS", copied)
    before = stack.marks({"prometheus.yml": "a"})
    assert stack.marks({"prometheus.yml": "a"}) == before
    assert _differing(before, stack.marks({"prometheus.yml": "b"})) == {"prometheus"}
    for name, place in copied.items():
        file = next(f for f in (place, *place.rglob("*.*")) if f.is_file())
        file.write_text(file.read_text() + "\n")
        assert _differing(before, stack.marks({"prometheus.yml": "a"})) == {name}
        before = stack.marks({"prometheus.yml": "a"})


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def test_a_container_that_reads_a_file_of_ours_is_known_by_what_is_in_it() -> None:
    """Compose compares a mounted file's name alone."""
    services = documents.read(REPOSITORY / "docker-compose.monitoring.yaml")["services"]
    reading = {
        name
        for name, service in services.items()
        for mount in service.get("volumes", [])
        if mount.startswith(("./files/", "${MONITORING_DIRECTORY"))
    }
    marks = {
        n: s["labels"]["wallet-service.settings"] for n, s in services.items() if "labels" in s
    }
    assert marks.keys() == reading
    known = {f"${{MONITORING_{name.upper()}_SETTINGS:-}}" for name, _ in READS}
    assert set(marks.values()) == known - {"${MONITORING_COLLECTOR_SETTINGS:-}"}
    assert len(set(marks.values())) == len(marks)


def test_a_supervisor_that_has_died_is_no_monitoring_that_runs(tmp_path: Path) -> None:
    """It leaves its socket behind."""
    made = Sandbox("inventories/process.py", tmp_path, (1, 2, 3))
    (made.state_dir / "monitoring").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(made.state_dir / "monitoring" / "supervisor.sock"))
    done = made.pyinfra("tasks.monitoring.stop")
    assert done.returncode == 0, done.stderr


def test_every_image_is_pinned_to_a_release() -> None:
    services = documents.read(REPOSITORY / "docker-compose.monitoring.yaml")["services"]
    tags = [service["image"].rpartition(":")[2] for service in services.values()]
    assert "latest" not in tags and all(tag.strip("v")[0].isdigit() for tag in tags)
