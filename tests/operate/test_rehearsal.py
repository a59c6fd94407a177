"""A copy of production in another place, by the command a user types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Sandbox, sandbox
from tests.operate.forged import rewrite
from tests.operate.ledger import Ledger
from tests.unit.test_servers import env_text

HOSTS = ("172.20.0.10", "172.20.0.11", "172.20.0.12")  # where the sandbox's environment has them


def production(directory: Path) -> Path:
    """An inventory of servers, of which none is needed: their backup is here."""
    env_file, file = directory / "production.env", directory / "production.py"
    changes = {"SUBNET": "172.20.0.0/24", "CLUSTER_ID": "0"}
    env_file.write_text(env_text(HOSTS, changes))
    env_file.chmod(0o600)
    file.write_text(
        "from cluster.servers import on_servers\n"
        f"hosts = on_servers('production', env_file={str(env_file)!r}, runtime='systemd', "
        "engine='emulator', development=True)\n"
    )
    return file


def backup_of_production(made: Sandbox, root: Path) -> Path:
    """The sandbox's own, under production's name."""
    done = made.run("make", "backup")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (taken,) = (root / "emulator").glob("*Z")
    renamed = root / "production" / taken.name
    renamed.parent.mkdir()
    taken.rename(renamed)

    def of_production(manifest: dict[str, Any]) -> None:
        manifest["deployment"] = "production"

    rewrite(renamed, of_production)
    return renamed


@pytest.mark.long
def test_productions_backup_is_restored_under_another_name_where_production_cannot_reach_it(
    tmp_path: Path,
) -> None:
    with sandbox("inventories/emulator.py", BACKUP_DIR=str(tmp_path / "backups")) as made:
        original = production(tmp_path)
        assert made.up().returncode == 0
        ledger = Ledger(",".join(f"127.0.0.1:{port}" for port in made.ports))
        ledger.write(1, 100)
        before = ledger.read(200)
        taken = backup_of_production(made, tmp_path / "backups")
        ledger.write(101, 50)
        assert made.down().returncode == 0
        words = ["restore", f"--from={taken.name}", f"--copy-of={original}"]

        with made.having(CONFIRM="yes"):
            foreign = made.call("restore", f"--from={taken}")
            assert foreign.returncode == 2
            assert "expected a backup of cluster 0 (emulator, emulator)" in foreign.stderr
            itself = made.call(*words, f"--inventory={original}")
            assert itself.returncode == 2
            assert "another deployment's name than 'production'" in itself.stderr
            with made.having(LU_CFG_TIGERBEETLE_CLUSTER_ID="7"):
                other = made.call(*words)
            assert other.returncode == 2
            assert "expected a backup of cluster 7 (production, emulator)" in other.stderr
        unconfirmed = made.call(*words)
        assert unconfirmed.returncode == 2
        assert "INTO A COPY, for a rehearsal: cluster 0 (emulator, emulator)" in unconfirmed.stdout
        assert "ROLLED BACK" not in unconfirmed.stdout

        typed = [f"FROM={taken.name}", f"COPY_OF={original}", "CONFIRM=yes"]
        done = made.run("make", "restore", *typed)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert re.search(r"commits, [\d.]+ s after the confirmation", done.stdout)
        assert ledger.read(200) == before
        ledger.write(101, 10)
