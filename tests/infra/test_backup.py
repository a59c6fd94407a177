"""What a backup of this deployment would cost."""

from __future__ import annotations

import pytest

from cluster.operate.backup import freeze
from tests.infra.world import World


def test_a_backup_needs_no_stop(world: World) -> None:
    """Skipped where it does: no fault, but something to know."""
    said = freeze.foreseen(world.deployment)
    if not said.startswith("backups freeze"):
        pytest.skip(said)
