"""Replicas on servers: what they are given to run by, and how they are read back. Pure."""

from __future__ import annotations

import re
import resource
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from cluster import config
from cluster.checks.facts import SCRIPT, Facts, limited, parse
from cluster.config.deployment import Deployment, Runtime
from cluster.config.servers import Server, Settings
from cluster.runtimes import image, layout, of, ssh, tunnel
from cluster.runtimes.base import ReplicaProcess
from cluster.runtimes.docker import Docker
from cluster.runtimes.servers import fingerprint
from cluster.runtimes.systemd import Systemd
from tests.unit.test_servers import HOSTS, env_text


def deployment(directory: Path, runtime: Runtime = "systemd", **variables: str) -> Deployment:
    file = directory / "production.env"
    file.write_text(env_text(changes=variables))
    return Deployment(
        name="production",
        engine="tigerbeetle",
        runtime=runtime,
        state_dir=directory,
        cluster=config.load(file, {}, lambda cluster: None),
        settings=Settings.model_validate({"env_file": str(file), "runtime": runtime}),
        servers=tuple(
            Server.of({"replica": i, "ssh_hostname": host, "ssh_user": "admin", "_sudo": True})
            for i, host in enumerate(HOSTS)
        ),
    )


UNIT_STATES = [
    ("loaded active 7 0", ReplicaProcess("RUNNING", 7)),
    ("loaded activating 0 1", ReplicaProcess("BACKOFF", 0)),
    ("loaded activating 0 3", ReplicaProcess("FATAL", 0)),
    ("loaded failed 0 0", ReplicaProcess("FATAL", 0)),
    ("loaded inactive 0 0", ReplicaProcess("EXITED", 0)),
    ("not-found inactive 0 0", None),
]


def shown(values: str) -> str:
    """What `systemctl show` prints for these."""
    names = ("LoadState", "ActiveState", "MainPID", "NRestarts")
    return "\n".join(f"{n}={v}" for n, v in zip(names, values.split(), strict=True))


def test_no_answer_is_no_unit() -> None:
    assert Systemd.parse_state("") is None


@pytest.mark.parametrize(("said", "expected"), UNIT_STATES, ids=[s for s, _ in UNIT_STATES])
def test_a_unit_s_state_is_read(said: str, expected: ReplicaProcess | None) -> None:
    assert Systemd.parse_state(shown(said)) == expected


CONTAINER_STATES = [
    ("running 7 0", ReplicaProcess("RUNNING", 7)),
    ("restarting 0 1", ReplicaProcess("BACKOFF", 0)),
    ("restarting 0 3", ReplicaProcess("FATAL", 0)),
    ("exited 0 0", ReplicaProcess("EXITED", 0)),
    ("", None),
]


@pytest.mark.parametrize(
    ("said", "expected"), CONTAINER_STATES, ids=[s or "none" for s, _ in CONTAINER_STATES]
)
def test_a_container_s_state_is_read(said: str, expected: ReplicaProcess | None) -> None:
    assert Docker.parse_state(said) == expected


def test_the_unit_runs_the_program_it_was_given_on_its_own_file(tmp_path: Path) -> None:
    made = deployment(tmp_path)
    text = Systemd(made).unit_file(1, "/usr/local/lib/tigerbeetle/x/tigerbeetle")
    path = layout.data_path(made, 1)
    addresses = "10.1.0.11:3000,10.1.0.12:3000,10.1.0.13:3000"
    assert (
        f"ExecStart=/usr/local/lib/tigerbeetle/x/tigerbeetle start --addresses={addresses} "
        f"--cache-grid=512MiB {path}\n"
    ) in text
    assert "ReadWritePaths=/var/lib/tigerbeetle/replica-1\n" in text
    assert "a-token-of-its-own" not in text


def test_the_compose_file_is_yaml_and_means_the_same(tmp_path: Path) -> None:
    made = deployment(tmp_path, "docker")
    service = yaml.safe_load(Docker(made).compose_file(2, "sha256:1"))["services"]["tigerbeetle"]
    assert service["network_mode"] == "host"
    assert service["command"][0] == "start"
    assert service["command"][-1] == f"/data/{made.cluster.id}_2.tigerbeetle"
    (volume,) = service["volumes"]
    assert (volume["source"], volume["target"]) == ("/var/lib/tigerbeetle/replica-2", "/data")
    assert volume["bind"] == {"create_host_path": False}
    assert service["security_opt"] == ["seccomp=/etc/tigerbeetle/seccomp.json"]
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["IPC_LOCK"]
    assert service["read_only"] is True


def test_equal_settings_have_equal_fingerprints(tmp_path: Path) -> None:
    first = Systemd(deployment(tmp_path)).unit_file(0, "/p")
    assert fingerprint(first) == fingerprint(Systemd(deployment(tmp_path)).unit_file(0, "/p"))


CHANGES = [{"CACHE_GRID": "64MiB"}, {"STATSD": "10.1.0.9:8125"}, {"MEMORY_LIMIT": "4GiB"}]


@pytest.mark.parametrize("changed", CHANGES, ids=[next(iter(c)) for c in CHANGES])
@pytest.mark.parametrize("runtime", ["systemd", "docker"])
def test_a_changed_setting_changes_the_fingerprint(
    tmp_path: Path, runtime: Runtime, changed: dict[str, str]
) -> None:
    def mark(made: Deployment) -> str:
        if runtime == "systemd":
            return fingerprint(Systemd(made).unit_file(0, "/p"))
        return fingerprint(Docker(made).compose_file(0, "sha256:1"))

    before = mark(deployment(tmp_path, runtime))
    assert mark(deployment(tmp_path, runtime, **changed)) != before


def test_a_server_s_own_limit_is_in_its_compose_file_and_equal_ones_need_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "identity", lambda _: "sha256:1")
    may, own = "000001ffffffffff 8388608 0 0 4294967295", "000001fffeffffff 8388608 0 0 4294967295"
    seen = {i: Facts(engine_limits=limits) for i, limits in enumerate((may, own, own))}

    def described() -> list[str]:
        runtime = Docker(limited(deployment(tmp_path, "docker"), seen))
        return [runtime.described(i) for i in range(3)]

    limits = [yaml.safe_load(t)["services"]["tigerbeetle"]["ulimits"] for t in described()]
    assert limits == [{"memlock": -1}, {"memlock": 8388608}, {"memlock": 8388608}]
    assert described()[0] == Docker(deployment(tmp_path, "docker")).described(0)  # as ever
    marks = {i: fingerprint(text) for i, text in enumerate(described())}
    assert not Docker(limited(deployment(tmp_path, "docker"), seen)).todo(marks)


def test_a_server_says_what_its_engine_may_grant() -> None:
    script = f"pgrep() {{ echo $$; }}\n{SCRIPT.read_text()}"
    done = subprocess.run(
        ["sh", "-s", "--", "nobody", "/", "1"], input=script, capture_output=True, text=True
    )
    limits = parse(done.stdout.splitlines(), 0.0).engine_limits.split()
    status = Path("/proc/self/status").read_text()
    assert [limits[0], *limits[2:]] == [
        *re.findall(r"^CapEff:\s+(\w+)$", status, re.M),
        *Path("/proc/self/uid_map").read_text().split(),
    ]
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert limits[1] == ("unlimited" if hard == resource.RLIM_INFINITY else str(hard))


def test_another_program_or_image_changes_the_fingerprint(tmp_path: Path) -> None:
    unit, container = deployment(tmp_path), deployment(tmp_path, "docker")
    assert fingerprint(Systemd(unit).unit_file(0, "/p")) != fingerprint(
        Systemd(unit).unit_file(0, "/q")
    )
    assert fingerprint(Docker(container).compose_file(0, "sha256:1")) != fingerprint(
        Docker(container).compose_file(0, "sha256:2")
    )


def test_a_program_s_place_depends_on_its_content(tmp_path: Path) -> None:
    made = deployment(tmp_path)
    assert layout.program(made, "a" * 64) != layout.program(made, "b" * 64)


def test_who_is_not_root_runs_everything_through_sudo(tmp_path: Path) -> None:
    server = deployment(tmp_path).servers[0]
    assert ssh.line(server, "systemctl show 'a b'").startswith("sudo -n sh -c ")
    assert ssh.line(server.model_copy(update={"sudo": False}), "true") == "true"


def test_a_changed_host_key_is_never_accepted(tmp_path: Path) -> None:
    options = " ".join(ssh.command(deployment(tmp_path).servers[0]))
    assert "StrictHostKeyChecking=accept-new" in options
    assert "BatchMode=yes" in options
    assert options.endswith(" -l admin 10.1.0.11")


@pytest.mark.parametrize(
    ("own", "clients", "expected"),
    [
        (["10.1.0.5"], ["10.1.0.0/24"], True),
        (["10.1.0.5"], ["10.1.0.5/32"], True),
        (["10.1.0.5"], ["10.2.0.0/24"], False),
        (["10.1.0.5"], [], False),
        ([], ["10.1.0.0/24"], False),
    ],
)
def test_a_machine_with_a_client_s_address_is_a_client(
    own: list[str], clients: list[str], expected: bool
) -> None:
    assert tunnel.is_client(map(IPv4Address, own), map(IPv4Network, clients)) is expected


@pytest.mark.parametrize(("reach", "expected"), [("direct", False), ("tunnel", True)])
def test_the_inventory_decides_over_tunnels(tmp_path: Path, reach: str, expected: bool) -> None:
    made = deployment(tmp_path)
    assert made.settings
    changed = made.settings.model_copy(update={"reach": reach})
    assert tunnel.is_needed(made.model_copy(update={"settings": changed})) is expected


def test_what_is_reached_through_tunnels_is_not_tunnelled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deployment(tmp_path)
    assert made.settings
    made = made.model_copy(
        update={"settings": made.settings.model_copy(update={"reach": "tunnel"})}
    )
    ports = iter(range(40_001, 40_007))
    monkeypatch.setattr(tunnel, "_port_to", lambda *_: next(ports))
    once = tunnel.reached(made)
    expected = {f"127.0.0.1:{port}" for port in (40_001, 40_002, 40_003)}
    assert set(once.client_addresses.split(",")) == expected
    assert once.peers == made.peers == made.client_addresses
    assert tunnel.reached(once) == once


@pytest.mark.parametrize("runtime", ["systemd", "docker"])
def test_every_runtime_of_servers_can_be_controlled(tmp_path: Path, runtime: Runtime) -> None:
    running = of(deployment(tmp_path, runtime))
    assert "tigerbeetle-1" in running.stop(1)
    assert "tigerbeetle-1" in running.start(1) or layout.compose_file(1) in running.start(1)
    assert "format" in running.tigerbeetle(1, "format", running.data_file(1))
