"""What a backup and a restore need is tried before anything is stopped or unpacked."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import DeployError

from cluster import config
from cluster.config.deployment import Deployment
from cluster.operate import phase
from cluster.operate.backup import packing, sets, take
from cluster.refusal import Failed
from cluster.runtimes import of
from cluster.runtimes.base import Runtime
from tasks import backup as tasks_backup
from tests.unit.test_backup_set import made_set

CLUSTER = config.parse(config.read(config.ENV_FILE, {}))


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(
        name="emulator",
        engine="emulator",
        runtime="process",
        cluster=CLUSTER.on_loopback(),
        state_dir=tmp_path / "it's mine",
    )


@pytest.fixture
def runtime(deployment: Deployment) -> Runtime:
    made = of(deployment)
    path = Path(made.data_file(0))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"money")
    return made


def shell(script: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", packing.together([script])],
        env=os.environ | {"PATH": path},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def test_one_byte_is_packed_and_the_data_file_is_as_it_was_while_its_replica_runs(
    runtime: Runtime, tmp_path: Path
) -> None:
    data = Path(runtime.data_file(0))
    with data.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a server does
        done = shell(packing.try_out(runtime, 0, tmp_path / "tried-0"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tried-0.size").read_text() == "5\n"
    packed = next(p for s in ("zst", "gz") if (p := tmp_path / f"tried-0.{s}").exists())
    unpacked = subprocess.run(
        [_packer(packed.suffix[1:]), "-dc", str(packed)], capture_output=True, check=True
    )
    assert unpacked.stdout == b"m"
    assert data.read_bytes() == b"money"


def _packer(suffix: str) -> str:
    return {"zst": "zstd", "gz": "gzip"}[suffix]


@pytest.mark.parametrize("broken", [("zstd", "gzip"), ("flock",), ("head",)], ids=str)
def test_a_program_that_fails_is_told_in_one_line_before_the_stop(
    runtime: Runtime, tmp_path: Path, broken: tuple[str, ...]
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in {"zstd", *broken} - {"flock"}:
        (programs / name).write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    if "flock" in broken:  # what there is, but for that
        for name in ("sh", "head", "cat", "rm", "stat", "gzip", "env", "python3"):
            (programs / name).unlink(missing_ok=True)
            (programs / name).symlink_to(str(shutil.which(name)))
        (programs / "zstd").unlink()
        path = str(programs)
    done = shell(packing.try_out(runtime, 0, tmp_path / "tried-0"), path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("replica 0: expected to read its data file, ")
    assert "no replica was stopped" in done.stderr.splitlines()[-1]


def test_a_data_file_that_cannot_be_read_is_told_before_the_stop(
    runtime: Runtime, tmp_path: Path
) -> None:
    Path(runtime.data_file(0)).unlink()
    done = shell(packing.try_out(runtime, 0, tmp_path / "tried-0"))
    assert done.returncode == 1
    assert "replica 0: expected to read its data file" in done.stderr


def test_a_place_that_cannot_be_written_is_told_before_the_stop(
    runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "to").write_text("")  # a file where the directory belongs
    done = shell(packing.require_room(runtime, [0], tmp_path / "to", ""))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"backup: expected to make the directory {tmp_path}/to, found what is")
    assert shell(packing.try_out(runtime, 0, tmp_path / "to" / "tried-0")).returncode == 1


def test_a_restore_without_room_for_what_it_unpacks_is_refused(runtime: Runtime) -> None:
    done = shell(packing.require_room_beside(runtime, 0, 2**50))
    assert done.returncode == 1
    assert "restore: expected 1073741824 MiB free in " in done.stderr
    assert "Fix: free some" in done.stderr
    assert shell(packing.require_room_beside(runtime, 0, 2**20)).returncode == 0


def free_here(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    free = shutil.disk_usage("/")._replace(free=mib << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)


def tried(root: Path, *mib: int) -> Path:
    """A set that is being made: a trial of each server, whose whole file has so many MiB."""
    partial = root / "20261129T000000Z.partial"
    partial.mkdir()
    for index, size in enumerate(mib):
        (partial / f"tried-{index}.size").write_text(f"{size << 20}\n")
        (partial / f"tried-{index}.zst").write_bytes(b"packed")
    return partial


@pytest.mark.parametrize(("sizes", "is_enough"), [((40, 60), True), ((40, 61), False)])
def test_the_room_here_is_for_all_servers_files_together(
    deployment: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    *,
    is_enough: bool,
) -> None:
    partial = tried(tmp_path, *sizes)
    free_here(monkeypatch, 100)
    if is_enough:
        tasks_backup._require_room_here(deployment, partial)
    else:
        with pytest.raises(DeployError, match=r"expected 101 MiB free in .*, found 100 MiB"):
            tasks_backup._require_room_here(deployment, partial)
    assert [*partial.iterdir()] == []  # no trial is ever part of a backup


@pytest.mark.parametrize("cluster_id", [CLUSTER.id, CLUSTER.id + 1])
def test_twice_the_newest_backup_of_this_cluster_is_room_enough(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster_id: int
) -> None:
    whose = {"deployment": deployment.name, "engine": deployment.engine}
    made_set(tmp_path / "20261128T000000Z", cluster_id=str(cluster_id), **whose)
    partial = tried(tmp_path, 200)
    free_here(monkeypatch, 100)
    if cluster_id == deployment.cluster.id:
        tasks_backup._require_room_here(deployment, partial)
    else:
        with pytest.raises(DeployError, match="expected 200 MiB free"):
            tasks_backup._require_room_here(deployment, partial)


#: What was noted when it failed → the phases that follow.
AFTER: Mapping[tuple[str, ...], list[str]] = {
    (): ["forget"],
    (sets.STOPPED,): ["start_again"],
    (sets.STOPPED, sets.COMMITTED): ["forget"],
}


@pytest.mark.parametrize("noted", AFTER, ids=str)
def test_replicas_are_started_again_only_where_they_were_stopped_and_not_started(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: tuple[str, ...]
) -> None:
    ran: list[str] = []

    def run(inventory: str, task: str, **options: Any) -> None:
        ran.append(task.removeprefix("tasks.backup."))
        if len(ran) == 1:
            for name in noted:
                (tmp_path / name).write_text("1")
            raise Failed("a server has failed")

    monkeypatch.setattr(phase, "run", run)
    on_servers = deployment.model_copy(update={"servers": ("any",)})
    with pytest.raises(Failed, match="a server has failed"):
        take._pack("any", on_servers, {"backup_set": str(tmp_path)}, None, was_running=True)
    assert ran == ["take", *AFTER[noted]]
