"""Malformed traffic neither stops the emulator nor changes its ledger (short form)."""

from __future__ import annotations

import os

from tests.emulator.fuzz import Fuzzer
from tests.emulator.servers import ServerProcess


def test_malformed_traffic_does_no_harm(emulator_process: ServerProcess) -> None:
    fuzzer = Fuzzer(emulator_process.ports[0], seed=7)
    fuzzer.run(int(os.environ.get("FUZZ_MESSAGES", "4000")))
    fuzzer.close()
    assert fuzzer.outcomes["closed"] > 0
    assert fuzzer.outcomes["answered"] > 0
    assert emulator_process.process is not None
    assert emulator_process.process.poll() is None
    assert "Traceback" not in emulator_process.log
