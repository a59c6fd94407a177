"""Backup, restore and recovery of replicas in Docker: the same commands, other places."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.sandbox import best_engine, docker, docker_sandbox
from tests.operate.ledger import Ledger
from tests.operate.test_backup import backup, make

pytestmark = [pytest.mark.docker, pytest.mark.long]


def test_a_lost_volume_is_recovered_and_all_lost_volumes_are_restored(tmp_path: Path) -> None:
    engine = best_engine()
    with docker_sandbox(engine, BACKUP_DIR=str(tmp_path)) as made:
        done = made.up()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        ledger = Ledger(",".join(f"127.0.0.1:{port}" for port in made.ports))
        ledger.write(1, 3000)
        before = ledger.read(4000)
        assert len(before["transfers"]) == 3000
        taken = backup(made)
        ledger.write(3001, 1000)

        docker("rm", "--force", made.names[1])
        assert docker("volume", "rm", made.volumes[1]).returncode == 0
        recovered = make(made, "recover", "REPLICA=1")
        if engine == "emulator":
            assert recovered.returncode == 2
            assert "found the EMULATOR" in recovered.stderr
        else:
            assert recovered.returncode == 0, recovered.stdout[-2000:] + recovered.stderr[-4000:]
            assert make(made, "status").returncode == 0
            assert len(ledger.read(4000)["transfers"]) == 4000

        assert make(made, "compose-tb-down-volumes", "CONFIRM=yes").returncode == 0
        assert made.volumes == []
        restored = make(made, "restore", f"FROM={taken}", "CONFIRM=yes")
        assert restored.returncode == 0, restored.stdout[-3000:] + restored.stderr[-4000:]
        assert ledger.read(4000) == before
