"""Backups without a stop of replicas in Docker: their volumes are on a file system that clones."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cluster.config import inventory
from tests.docker.sandbox import DockerSandbox, best_engine, docker, docker_sandbox
from tests.file_systems import xfs
from tests.operate import rounds
from tests.operate.test_backup import backup

pytestmark = [pytest.mark.docker, pytest.mark.long]


@contextmanager
def on_xfs(made: DockerSandbox, place: Path) -> Iterator[None]:
    """Its volumes' files are below ``place``: their directories are mounted over, as it is down."""
    with ExitStack() as mounted:
        for volume in made.volumes:
            asked = docker("volume", "inspect", "--format={{.Mountpoint}}", volume)
            data, there = asked.stdout.strip(), str(place / volume)
            subprocess.run(["cp", "--archive", data, there], check=True, timeout=600)
            subprocess.run(["mount", "--bind", there, data], check=True, timeout=60)
            mounted.callback(subprocess.run, ["umount", data], check=True, timeout=60)
        try:
            yield
        finally:
            assert made.make("compose-tb-down").returncode == 0


def test_backups_in_a_row_under_load_have_every_transfer_acknowledged_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = f"KEEP={rounds.ROUNDS + 1}"
    with xfs() as place, docker_sandbox(best_engine(), BACKUP_DIR=str(tmp_path / "to")) as made:
        assert made.up().returncode == 0
        assert made.make("compose-tb-down").returncode == 0
        with on_xfs(made, place):
            done = made.up()
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            assert "backups freeze all replicas for a moment" in done.stdout + done.stderr
            before = made.lives()

            def take(*words: str) -> Path:
                if "WAY=freeze" in words:
                    assert made.lives() == before
                return backup(made, keep, *words)

            taken, operations = rounds.take(made.environ, tmp_path / "runs", take)
            for index in range(3):
                left = made.in_volume(index, "ls /data").stdout.split()
                assert [name for name in left if "clone" in name] == []
        with made.entered():
            rounds.prove(inventory.read(made.inventory), taken, operations, monkeypatch)
