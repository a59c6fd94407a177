"""The differential suite in short form, and checks of the suite itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulator import servers
from tests.emulator.differential.campaign import Campaign, explore
from tests.emulator.differential.runner import Statistics, run
from tests.emulator.differential.shrink import shrink
from tests.emulator.differential.steps import Step
from tests.emulator.differential.workload import Workload
from tests.emulator.native import NativeClient
from tests.emulator.records import U128_MAX


@pytest.fixture
def clients(
    emulator_process: servers.ServerProcess, genuine_server: servers.ServerProcess
) -> Iterator[tuple[NativeClient, NativeClient]]:
    with (
        NativeClient(0, emulator_process.addresses) as one,
        NativeClient(0, genuine_server.addresses) as other,
    ):
        yield one, other


@pytest.mark.genuine
@pytest.mark.slow
def test_no_random_workload_tells_the_emulator_from_the_genuine_server(
    clients: tuple[NativeClient, NativeClient],
) -> None:
    campaign = explore([1001, 1002, 1003], 300, clients)
    assert campaign.divergences == [], campaign.report()
    assert campaign.statistics.events > 3000


def test_a_difference_is_found_and_named(emulator_process: servers.ServerProcess) -> None:
    # The emulator against itself, but one of the two has seen an id before.
    import tigerbeetle_emulator

    with (
        tigerbeetle_emulator.run() as other,
        NativeClient(0, emulator_process.addresses) as client,
        NativeClient(0, other.address) as spoiled,
    ):
        steps = Workload(1).steps(40)
        assert run(steps, (client, spoiled), 5, Statistics()) is None
        run(steps[:10], (spoiled, spoiled), 6, Statistics())
        divergence = run(steps, (client, spoiled), 6, Statistics())
        assert divergence is not None
        assert divergence.step.uid == 1
        assert "create_accounts" in str(divergence)


def test_the_same_seed_is_the_same_workload() -> None:
    assert Workload(5).steps(300) == Workload(5).steps(300) != Workload(6).steps(300)


def test_no_short_timeout_slips_into_traffic() -> None:
    for seed in range(30):
        for step in Workload(seed).steps(400):
            short = [e for packet in step.packets for e in packet if e.get("timeout") == 1]
            # Only the holds of an expiry phase, which come as one packet followed by a pause.
            assert not short or len(short) == len(step.packets[0]), step


def test_no_import_resolves_a_hold_that_can_time_out() -> None:
    # The genuine server stops on that, through the ordinary interface.
    for seed in range(30):
        timed = set()
        for step in Workload(seed).steps(600):
            for event in (event for packet in step.packets for event in packet):
                flags = event.get("flags", 0)
                if step.operation == 147 and isinstance(flags, int) and flags & 256:
                    assert not (flags & 12 and event.get("pending_id") in timed), event
                if event.get("timeout") and event["id"] not in (0, U128_MAX):
                    timed.add(event["id"])


def test_shrinking_keeps_only_what_fails() -> None:
    steps = [Step(uid, 147, (({"id": uid}, {"id": uid + 1000}),)) for uid in range(64)]
    tried = []

    def fails(candidate: list[Step]) -> bool:
        tried.append(candidate)
        ids = {event["id"] for step in candidate for packet in step.packets for event in packet}
        return {17, 1050} <= ids

    short = shrink(steps, fails)
    assert [step.packets for step in short] == [(({"id": 17},),), (({"id": 1050},),)]
    assert len(tried) < 150


def test_a_campaign_names_the_statuses_it_missed() -> None:
    missing = Campaign().missing()
    assert "create_accounts EXISTS" in missing
    assert "create_transfers EXCEEDS_CREDITS" in missing
    assert "create_transfers OVERFLOWS_TIMEOUT" not in missing
