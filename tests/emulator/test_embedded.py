"""The emulator in somebody's own test suite: `run()`, the fixture, faults on request."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tigerbeetle as tb

import tigerbeetle_emulator
from tests.emulator import raw, records
from tests.emulator.native import NativeClient
from tests.emulator.raw import RawClient
from tigerbeetle_emulator.server.faults import Faults
from tigerbeetle_emulator.server.journal import DataFileError

_LOOKUP = records.LOOKUP_ACCOUNTS
_BODY = raw.multi_batch(_LOOKUP, [records.pack(records.ID, id=1)])


def _port(cluster: tigerbeetle_emulator.Emulator) -> int:
    return int(cluster.address.split(",")[0].rpartition(":")[2])


def test_a_wallet_test_runs_against_the_fixture(
    tigerbeetle_emulator: tigerbeetle_emulator.Emulator,
) -> None:
    client = tb.ClientSync(tigerbeetle_emulator.cluster_id, tigerbeetle_emulator.address)
    try:
        limit = tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
        results = client.create_accounts(
            [tb.Account(id=1, ledger=1, code=1, flags=limit), tb.Account(id=2, ledger=1, code=1)]
        )
        assert [result.status for result in results] == [tb.CreateAccountStatus.CREATED] * 2
        overdraft = tb.Transfer(
            id=tb.id(), debit_account_id=1, credit_account_id=2, amount=1, ledger=1, code=1
        )
        (result,) = client.create_transfers([overdraft])
        assert result.status == tb.CreateTransferStatus.EXCEEDS_CREDITS
    finally:
        client.close()


def test_each_test_gets_an_empty_ledger(
    tigerbeetle_emulator: tigerbeetle_emulator.Emulator,
) -> None:
    with RawClient(_port(tigerbeetle_emulator)) as client:
        client.register()
        assert raw.split_batches(client.request(_LOOKUP, _BODY).body, 128) == [b""]


def test_loading_the_plugin_imports_nothing_of_the_emulator() -> None:
    # The package's __init__ is loaded with the plugin, as any package's is; it must cost nothing.
    script = (
        "import sys, pytest; before = set(sys.modules); import tigerbeetle_emulator.pytest_plugin\n"
        "print(sorted(name for name in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['tigerbeetle_emulator', 'tigerbeetle_emulator.pytest_plugin']"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tigerbeetle_emulator.nonsense


def test_several_addresses_are_one_ledger() -> None:
    with tigerbeetle_emulator.run(replicas=3, cluster=9) as cluster:
        ports = [int(each.rpartition(":")[2]) for each in cluster.address.split(",")]
        assert len(set(ports)) == 3
        account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
        for port in ports:
            with RawClient(port, cluster=9) as client:
                client.register()
                client.batches(records.CREATE_ACCOUNTS, [account])
                assert len(client.request(_LOOKUP, _BODY).body) == 256
        with NativeClient(9, cluster.address) as native:
            assert len(native.request(_LOOKUP, records.pack(records.ID, id=1)).data) == 128


def test_a_ledger_with_a_path_is_there_again(tmp_path: Path) -> None:
    account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
    with (
        tigerbeetle_emulator.run(path=tmp_path / "data") as cluster,
        RawClient(_port(cluster)) as client,
    ):
        client.register()
        client.batches(records.CREATE_ACCOUNTS, [account])
    with (
        tigerbeetle_emulator.run(path=tmp_path / "data") as cluster,
        RawClient(_port(cluster)) as client,
    ):
        client.register()
        assert len(client.request(_LOOKUP, _BODY).body) == 256
    with (
        pytest.raises(DataFileError, match=r"expected cluster 1, .* is of cluster 0, replica 0"),
        tigerbeetle_emulator.run(path=tmp_path / "data", cluster=1),
    ):
        pass


def test_a_stop_keeps_the_ledger_and_the_sessions() -> None:
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        client.register()
        address = cluster.address
        cluster.stop()
        with pytest.raises(raw.Closed):
            client.receive()
        with pytest.raises(OSError, match="refused"):
            client.reconnect()
        cluster.start()
        assert cluster.address == address
        client.reconnect()
        client.request(_LOOKUP, _BODY)


# -- faults --------------------------------------------------------------------------------------


def test_latency_delays_every_reply() -> None:
    faults = Faults(latency=0.15, latency_jitter=0.05)
    with tigerbeetle_emulator.run(faults=faults) as cluster, RawClient(_port(cluster)) as client:
        started = time.monotonic()
        client.register()
        client.request(_LOOKUP, _BODY)
        assert time.monotonic() - started >= 0.3
        cluster.faults.latency = cluster.faults.latency_jitter = 0.0
        client.request(_LOOKUP, _BODY)


def test_a_dropped_reply_was_executed_all_the_same() -> None:
    account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
    body = raw.multi_batch(records.CREATE_ACCOUNTS, [account])
    with tigerbeetle_emulator.run() as cluster, RawClient(_port(cluster)) as client:
        client.register()
        cluster.faults.drop_replies = 1.0
        assert client.ask(records.CREATE_ACCOUNTS, body) is None
        cluster.faults.drop_replies = 0.0
        # The retransmission gets the stored reply: created, not exists.
        answer = client.request(records.CREATE_ACCOUNTS, body)
        (result,) = records.unpack(records.CREATE_RESULT, answer.body[:16])
        assert result["status"] == records.CREATED


def test_the_genuine_client_gets_through_lost_replies() -> None:
    faults = Faults(seed=3, drop_replies=0.4)
    with (
        tigerbeetle_emulator.run(faults=faults) as cluster,
        NativeClient(0, cluster.address) as client,
    ):
        for number in range(1, 4):
            account = records.pack(records.ACCOUNT, id=number, ledger=1, code=1)
            reply = client.request(records.CREATE_ACCOUNTS, account)
            assert reply.data[8:12] == b"\xff" * 4


def test_an_eviction_on_request_ends_the_genuine_client() -> None:
    with tigerbeetle_emulator.run() as cluster:
        client = tb.ClientSync(0, cluster.address)
        client.lookup_accounts([1])
        cluster.faults.evict = 1.0
        with pytest.raises(tb.ClientEvictedError):
            client.lookup_accounts([1])
        client.close()


def test_a_refused_connection_is_closed_at_once() -> None:
    with tigerbeetle_emulator.run(faults=Faults(refuse=1.0)) as cluster:
        with RawClient(_port(cluster)) as client, pytest.raises(raw.Closed):
            client.receive()
        cluster.faults.refuse = 0.0
        with RawClient(_port(cluster)) as client:
            client.register()


def test_a_stop_on_request_comes_back() -> None:
    faults = Faults(stop_every=0.2, stop_for=0.2)
    with (
        tigerbeetle_emulator.run(faults=faults) as cluster,
        NativeClient(0, cluster.address) as client,
    ):
        account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
        client.request(records.CREATE_ACCOUNTS, account)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert len(client.request(_LOOKUP, records.pack(records.ID, id=1)).data) == 128


def test_the_same_seed_strikes_the_same_requests() -> None:
    one, other, different = Faults(seed=1), Faults(seed=1), Faults(seed=2)
    draws = [[each.strikes(0.5) for _ in range(64)] for each in (one, other, different)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    "wrong", [{"drop_replies": 1.5}, {"refuse": -1}, {"evict": 2}, {"latency": -1}]
)
def test_an_impossible_fault_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Faults(**wrong)  # type: ignore[arg-type]


def test_two_emulators_do_not_share_anything() -> None:
    with tigerbeetle_emulator.run() as one, tigerbeetle_emulator.run() as other:
        assert one.address != other.address
        account = records.pack(records.ACCOUNT, id=1, ledger=1, code=1)
        with RawClient(_port(one)) as first, RawClient(_port(other)) as second:
            first.register()
            second.register()
            first.batches(records.CREATE_ACCOUNTS, [account])
            assert len(second.request(_LOOKUP, _BODY).body) == 128
    names = [thread.name for thread in threading.enumerate()]
    assert "tigerbeetle-emulator" not in names


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    assert "tigerbeetle_emulator.run()" in example
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_fault_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    names = [name for name in vars(Faults()) if not name.startswith("_")]
    missing = [name for name in names if f"--fault-{name.replace('_', '-')}=" not in text]
    assert missing == []
