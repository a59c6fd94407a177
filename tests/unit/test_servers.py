"""An inventory of servers is validated before any connection: one line, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cluster import REPOSITORY, config
from cluster.config import ENV_FILE, inventory, rules, servers
from cluster.config.servers import Settings
from cluster.refusal import Refusal

P = config.PREFIX
HOSTS = ("10.1.0.11", "10.1.0.12", "10.1.0.13")


def env_text(
    hosts: tuple[str, ...] = HOSTS, changes: Mapping[str, str] = MappingProxyType({})
) -> str:
    """A private env file as `make init-env` writes it, with some values changed."""
    base = config.read(ENV_FILE, {})
    merged = {k: v for k, v in base.items() if not config.REPLICA_KEY.fullmatch(k)}
    for i, host in enumerate(hosts):
        merged |= {
            f"{P}{i}_CONTAINER_NAME": f"tigerbeetle-{i}",
            f"{P}{i}_IP": host,
            f"{P}{i}_PORT": "3000",
        }
    merged |= {
        f"{P}ADDRESSES": ",".join(f"{host}:3000" for host in hosts),
        f"{P}SUBNET": "10.1.0.0/24",
        f"{P}CLUSTER_ID": str(2**100 + 7),
        f"{P}AUTH_TOKEN": "a-token-of-its-own",
    }
    merged |= {f"{P}{key}": value for key, value in changes.items()}
    return "".join(f"{key}={value}\n" for key, value in merged.items())


@pytest.fixture(autouse=True)
def without_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(P)]:
        monkeypatch.delenv(name)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    file = tmp_path / "production.env"
    file.write_text(env_text())
    file.chmod(0o600)
    return file


def hosts_of(env_file: Path, **settings: Any) -> list[tuple[str, dict[str, Any]]]:
    return servers.on_servers(
        "production", **{"env_file": str(env_file), "runtime": "systemd"} | settings
    )


def refusal(capsys: pytest.CaptureFixture[str], env_file: Path, **settings: Any) -> str:
    """The one line with which an inventory file ends the program."""
    with pytest.raises(SystemExit) as ended:
        hosts_of(env_file, **settings)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert ", found " in line
    assert ". Fix: " in line
    return line


def test_each_replica_is_a_host_of_its_own_name_at_its_own_address(env_file: Path) -> None:
    hosts = hosts_of(env_file)
    assert [name for name, _ in hosts] == ["tigerbeetle-0", "tigerbeetle-1", "tigerbeetle-2"]
    assert tuple(data["ssh_hostname"] for _, data in hosts) == HOSTS
    assert [data["replica"] for _, data in hosts] == [0, 1, 2]


def test_ssh_names_may_differ_from_the_replicas_addresses(env_file: Path) -> None:
    hosts = hosts_of(env_file, ssh_hosts=("a", "b", "c"))
    assert [data["ssh_hostname"] for _, data in hosts] == ["a", "b", "c"]


def test_the_host_data_holds_no_secret(env_file: Path) -> None:
    assert "a-token-of-its-own" not in repr(hosts_of(env_file))


def test_bootstrapping_is_never_the_inventory_s_own_word(env_file: Path) -> None:
    assert all(data["bootstrap"] is False for _, data in hosts_of(env_file))
    with pytest.raises(SystemExit):
        hosts_of(env_file, bootstrap=True)


def test_root_needs_no_sudo_and_others_do(env_file: Path) -> None:
    assert all(data["_sudo"] is False for _, data in hosts_of(env_file))
    assert all(data["_sudo"] is True for _, data in hosts_of(env_file, ssh_user="admin"))


def test_the_deployment_reads_back_what_the_inventory_said(env_file: Path) -> None:
    hosts = hosts_of(env_file, ssh_user="admin", ssh_port=2222, clients=("10.9.0.0/24",))
    deployment = inventory.of_hosts([data for _, data in reversed(hosts)])
    assert deployment.runtime == "systemd"
    assert deployment.cluster.addresses == "10.1.0.11:3000,10.1.0.12:3000,10.1.0.13:3000"
    assert [s.hostname for s in deployment.servers] == list(HOSTS)
    assert [s.replica for s in deployment.servers] == [0, 1, 2]
    assert {(s.user, s.port, s.sudo) for s in deployment.servers} == {("admin", 2222, True)}
    assert deployment.env_file == env_file
    assert deployment.settings == Settings.model_validate(
        {"env_file": str(env_file), "runtime": "systemd", "clients": ["10.9.0.0/24"]}
    )


@pytest.mark.parametrize("count", [1, 3, 6])
def test_one_three_or_six_servers_are_a_cluster(env_file: Path, count: int) -> None:
    env_file.write_text(env_text(tuple(f"10.1.0.{i + 1}" for i in range(count))))
    assert len(hosts_of(env_file)) == count


BAD_ENV = [
    ({"CLUSTER_ID": "0"}, "CLUSTER_ID: expected a random number of this cluster's own"),
    ({"AUTH_TOKEN": rules.DEFAULT_TOKEN}, "AUTH_TOKEN: expected a token of this inst"),
    ({"0_IP": "127.0.0.1"}, "0_IP: expected the address of a server"),
    ({"1_IP": "10.1.0.11"}, "1_IP: expected one that differs from replica 0's"),
    ({"1_IP": "10.2.0.12"}, "1_IP: expected an address inside 10.1.0.0/24"),
    ({"RELEASE": "latest"}, "RELEASE: expected a release such as 0.17.9"),
    ({"ADDRESSES": "10.1.0.12:3000,10.1.0.11:3000,10.1.0.13:3000"}, "in order"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_ENV, ids=[says for _, says in BAD_ENV])
def test_a_bad_private_env_file_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, changes: dict[str, str], says: str
) -> None:
    env_file.write_text(env_text(changes=changes))
    assert says in refusal(capsys, env_file)


def test_a_bad_value_is_to_be_set_in_the_private_file(
    capsys: pytest.CaptureFixture[str], env_file: Path
) -> None:
    env_file.write_text(env_text(changes={"CACHE_GRID": "much"}))
    assert f"Fix: set it in {env_file}" in refusal(capsys, env_file)


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"runtime": "podman"}, "runtime: expected systemd (no Docker needed) or docker"),
    ({"data_dir": "var/lib"}, "data_dir: expected an absolute path"),
    ({"data_dir": "/srv/my data"}, "data_dir: expected an absolute path"),
    ({"clients": ("office",)}, "clients: expected networks such as"),
    ({"clients": ("10.9.0.1/24",)}, "clients: expected networks such as"),
    ({"reach": "vpn"}, "reach: expected auto, direct or tunnel"),
    ({"image_from": "hub"}, "image_from: expected ship or build"),
    ({"cleints": ()}, "cleints: expected a known setting"),
    ({"ssh_hosts": ("a", "b")}, "ssh_hosts: expected 3 hosts"),
    ({"ssh_hosts": ("a", "b", "a")}, "ssh_hosts: expected a server of its own"),
]


@pytest.mark.parametrize(("settings", "says"), BAD_SETTINGS, ids=[str(s) for s, _ in BAD_SETTINGS])
def test_a_bad_setting_of_the_inventory_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, settings: dict[str, Any], says: str
) -> None:
    assert says in refusal(capsys, env_file, **settings)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_an_env_file_that_others_can_read_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, mode: int
) -> None:
    env_file.chmod(mode)
    assert f"found mode {mode:o}. Fix: chmod 600" in refusal(capsys, env_file)


def test_an_absent_env_file_points_to_init_env(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "`make init-env`" in refusal(capsys, tmp_path / "production.env")


def test_a_rehearsal_may_share_a_machine_and_use_the_published_identity(env_file: Path) -> None:
    known = {"CLUSTER_ID": "0", "AUTH_TOKEN": rules.DEFAULT_TOKEN}
    env_file.write_text(env_text(changes=known))
    assert len(hosts_of(env_file, ssh_hosts=("a", "a", "a"), development=True)) == 3


def test_servers_may_share_a_port_and_one_machine_may_not(env_file: Path) -> None:
    settings = config.read(env_file, {})
    with pytest.raises(Refusal, match="1_PORT: expected one that differs"):
        config.parse(settings)
    assert len(hosts_of(env_file)) == 3


def monitored(
    capsys: pytest.CaptureFixture[str], env_file: Path, statsd: str, **settings: Any
) -> str:
    env_file.write_text(env_text(changes={"STATSD": statsd}))
    return refusal(capsys, env_file, **{"monitoring_host": "watch"} | settings)


@pytest.mark.parametrize("statsd", ["", "10.1.0.20:0", "10.1.0.20:99999", "999.1.0.20:8125"])
def test_a_monitoring_host_without_an_address_for_metrics_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, statsd: str
) -> None:
    line = monitored(capsys, env_file, statsd)
    where = "nothing, or IP:PORT: TigerBeetle" if statsd else "IP:PORT at watch"
    assert f"{P}STATSD: expected {where}" in line
    assert f"found {repr(statsd) if statsd else 'nothing'}. " in line


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0", "10.1.0.12"])
def test_metrics_that_would_stay_on_the_replicas_servers_are_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, ip: str
) -> None:
    line = monitored(capsys, env_file, f"{ip}:8125")
    assert f"{P}STATSD: expected an address of the monitoring host, apart" in line


def test_a_replica_s_server_as_monitoring_host_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path
) -> None:
    line = monitored(capsys, env_file, "10.1.0.20:8125", monitoring_host=HOSTS[1])
    assert f"found {HOSTS[1]}, a replica's" in line


@pytest.mark.parametrize("bind", ["0.0.0.0", "224.0.0.1", "::1", "everywhere"])
def test_prometheus_is_never_bound_to_every_address(
    capsys: pytest.CaptureFixture[str], env_file: Path, bind: str
) -> None:
    line = monitored(capsys, env_file, "10.1.0.20:8125", monitoring_bind=bind)
    assert "monitoring_bind: expected one address of the monitoring host, not 0.0.0.0" in line


@pytest.mark.parametrize("address", ["10.0.0.30", "http://10.0.0.30:9093", '"]:1', ""])
def test_an_alertmanager_without_host_and_port_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path, address: str
) -> None:
    line = refusal(capsys, env_file, alertmanagers=[address])
    assert "alertmanagers: expected HOST:PORT of your Alertmanagers" in line


def test_a_node_exporter_that_nobody_would_read_is_refused(
    capsys: pytest.CaptureFixture[str], env_file: Path
) -> None:
    line = refusal(capsys, env_file, node_exporter=True)
    assert "node_exporter: expected a monitoring_host that reads it, found none" in line


def test_a_monitoring_host_of_its_own_is_taken(env_file: Path) -> None:
    env_file.write_text(env_text(changes={"STATSD": "10.1.0.20:8125"}))
    hosts = hosts_of(env_file, ssh_user="admin", ssh_port=2222, monitoring_host="watch")
    watching = inventory.of_hosts([data for _, data in hosts]).monitoring
    assert watching is not None
    assert (watching.hostname, watching.user, watching.port) == ("watch", "admin", 2222)
    assert servers.monitoring_address(servers.load(servers.settings_of(hosts[0][1]))) == (
        IPv4Address("10.1.0.20"),
        8125,
    )


def test_without_a_monitoring_host_there_is_none(env_file: Path) -> None:
    assert inventory.of_hosts([data for _, data in hosts_of(env_file)]).monitoring is None


def test_every_setting_is_explained_in_the_example() -> None:
    example = (REPOSITORY / "inventories" / "production.example.py").read_text()
    for name in (*Settings.model_fields, "ssh_hosts", "ssh_user", "ssh_port", "ssh_key"):
        assert f"{name}=" in example


def test_the_example_loads_once_its_env_file_is_there(env_file: Path, tmp_path: Path) -> None:
    example = (REPOSITORY / "inventories" / "production.example.py").read_text()
    copy = tmp_path / "production.py"
    copy.write_text(example.replace("env/production.env", str(env_file)))
    assert inventory.read(copy).cluster.addresses.startswith("10.1.0.11:3000,")


def test_a_program_says_what_the_inventory_file_found_wrong(env_file: Path, tmp_path: Path) -> None:
    env_file.write_text(env_text(changes={"CLUSTER_ID": "0"}))
    example = (REPOSITORY / "inventories" / "production.example.py").read_text()
    copy = tmp_path / "production.py"
    copy.write_text(example.replace("env/production.env", str(env_file)))
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "inventory"],
        env=os.environ | {"INVENTORY": str(copy)},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {P}CLUSTER_ID: expected a random number")
    assert done.stderr.count("\n") == 1


def test_a_deployment_knows_the_file_that_describes_it(env_file: Path, tmp_path: Path) -> None:
    """Whatever the deployment is called: that is what a person is told to type."""
    example = (REPOSITORY / "inventories" / "production.example.py").read_text()
    copy = tmp_path / "eu.py"
    copy.write_text(example.replace("env/production.env", str(env_file)))
    found = inventory.read(copy)
    assert (found.name, found.inventory, found.file) == ("production", copy, str(copy))
    assert inventory.read("inventories/process.py").file == "inventories/process.py"
