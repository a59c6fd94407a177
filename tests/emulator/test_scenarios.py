"""Every scenario against the emulator's ledger, and against the genuine server where there is one.

The expectations were derived from documented facts; the genuine server is their judge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import tigerbeetle_emulator
from tests.emulator import scenarios
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient
from tests.emulator.servers import ServerProcess
from tests.emulator.world import LedgerBackend, RawBackend, ServerBackend, World
from tigerbeetle_emulator.protocol.status import CreateAccountStatus, CreateTransferStatus

# Needs a clock within 136 years of the year 2262; tested on its own in test_ledger.
_BEYOND_THE_CLOCK = {CreateTransferStatus.OVERFLOWS_TIMEOUT}


@pytest.mark.parametrize("name", scenarios.ALL)
def test_the_ledger_does_what_the_scenario_expects(name: str) -> None:
    scenarios.ALL[name](World(LedgerBackend(tigerbeetle_emulator)))


def test_the_scenarios_reach_every_status_of_both_creates() -> None:
    seen: dict[str, set[int]] = {"accounts": set(), "transfers": set()}
    for scenario in scenarios.ALL.values():
        world = World(LedgerBackend(tigerbeetle_emulator))
        scenario(world)
        for kind, statuses in world.seen.items():
            seen[kind] |= statuses
    assert set(CreateAccountStatus) - seen["accounts"] == set()
    assert set(CreateTransferStatus) - seen["transfers"] == _BEYOND_THE_CLOCK


@pytest.fixture(scope="module")
def genuine_client(genuine_server: ServerProcess) -> Iterator[NativeClient]:
    with NativeClient(genuine_server.cluster, genuine_server.addresses) as client:
        yield client


@pytest.mark.genuine
@pytest.mark.parametrize("name", scenarios.ALL)
def test_the_genuine_server_does_what_the_scenario_expects(
    name: str, genuine_client: NativeClient, genuine_server: ServerProcess
) -> None:
    namespace = random.getrandbits(60) | 1
    if "older clients" not in name:
        scenarios.ALL[name](World(ServerBackend(genuine_client), namespace))
        return
    with RawClient(genuine_server.ports[0], genuine_server.cluster) as client:
        client.register()
        scenarios.ALL[name](World(RawBackend(client), namespace))
