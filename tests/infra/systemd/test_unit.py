"""Each unit is up, comes back by itself, and has no way out of its confinement."""

from __future__ import annotations

import re

import pytest

from cluster.config import Replica, size_bytes
from tests.infra.world import UnitWorld

#: As `systemctl show` prints them.
SETTINGS = [
    ("User", "tigerbeetle"),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("CapabilityBoundingSet", "cap_ipc_lock"),
    ("AmbientCapabilities", "cap_ipc_lock"),
    ("Restart", "always"),
    ("TasksMax", "64"),
    ("LogNamespace", "tigerbeetle"),
]


def test_the_unit_runs_and_starts_with_the_server(world: UnitWorld, replica: Replica) -> None:
    service = world.at(replica).service(replica.name)
    assert service.is_running
    assert service.is_enabled


def test_the_unit_never_had_to_be_restarted(world: UnitWorld, replica: Replica) -> None:
    assert world.show(replica, "NRestarts") == "0"


def test_systemd_has_read_the_unit_as_it_is_written(world: UnitWorld, replica: Replica) -> None:
    assert world.show(replica, "NeedDaemonReload") == "no"


def test_the_replica_was_started_by_the_unit_as_it_is_written(
    world: UnitWorld, replica: Replica
) -> None:
    """systemd may have read it again since, which changes nothing of what runs."""
    unit = world.at(replica).file(f"/etc/systemd/system/{replica.name}.service").content_string
    (mark,) = re.findall(r"^Environment=(WALLET_SERVICE_SETTINGS=\w+)$", unit, re.MULTILINE)
    assert mark in world.proc(replica, "environ").split()


@pytest.mark.parametrize(("setting", "expected"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_the_unit_is_confined(
    world: UnitWorld, replica: Replica, setting: str, expected: str
) -> None:
    assert world.show(replica, setting) == expected


def test_the_unit_writes_to_the_replica_s_directory_alone(
    world: UnitWorld, replica: Replica
) -> None:
    assert world.show(replica, "ReadWritePaths") == world.directory(replica)
    inside = f"nsenter --target {world.pid(replica)} --mount"
    assert world.at(replica).run(f"{inside} test -w {world.directory(replica)}").rc == 0
    for elsewhere in ("/etc", "/usr/local/lib/tigerbeetle", "/var/lib"):
        refused = world.at(replica).run(f"{inside} touch {elsewhere}/.probe")
        assert refused.rc != 0
        assert "Read-only file system" in refused.stderr


def test_no_system_call_of_other_work_is_allowed(world: UnitWorld, replica: Replica) -> None:
    allowed = world.show(replica, "SystemCallFilter").split()
    assert {"io_uring_setup", "io_uring_enter", "mlockall"} <= set(allowed)
    assert {"mount", "ptrace", "reboot", "bpf", "init_module"}.isdisjoint(allowed)


def test_the_unit_has_the_configured_memory_limit(world: UnitWorld, replica: Replica) -> None:
    limit = size_bytes(world.deployment.cluster.memory_limit)
    assert world.show(replica, "MemoryMax") == str(limit)


def test_the_program_is_root_s_and_only_root_can_change_it(
    world: UnitWorld, replica: Replica
) -> None:
    path = next(p for p in world.show(replica, "ExecStart").split() if p.startswith("path="))
    program = world.at(replica).file(path.removeprefix("path="))
    assert (program.uid, program.mode) == (0, 0o755)


def test_the_replica_s_journal_has_a_limit_of_its_own(world: UnitWorld, replica: Replica) -> None:
    kept = world.at(replica).file("/etc/systemd/journald@tigerbeetle.conf").content_string
    assert "SystemMaxUse=256M" in kept.splitlines()
