"""docs/runbooks/lost-majority.md: nothing commits without a majority, and nothing is lost by it."""

from __future__ import annotations

import json

import pytest

from tests.clusters import sandbox
from tests.operate.ledger import Ledger

pytestmark = [pytest.mark.genuine, pytest.mark.long]


def test_a_majority_that_comes_back_brings_everything_back() -> None:
    with sandbox("inventories/process.py") as made:
        assert made.up().returncode == 0
        ledger = Ledger(made.deployment.cluster.addresses)
        ledger.write(1, 500)
        before = ledger.read(500)
        files = [made.data_file(index).stat().st_ino for index in range(3)]
        made.supervise("stop", "replica-0", "replica-1")

        status = made.call("status", "--json")
        assert status.returncode == 3
        assert json.loads(status.stdout)["verdict"] == "down"

        done = made.up()
        assert done.returncode == 0, done.stderr[-3000:]
        assert made.call("status").returncode == 0
        assert ledger.read(500) == before
        assert [made.data_file(index).stat().st_ino for index in range(3)] == files
