"""The official clients, newest and older, against an emulator process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.servers import ServerProcess

# Runs in a process of its own: the library aborts its process on a wrong reply.
_SMOKE = """
import sys
import tigerbeetle as tb

client = tb.ClientSync(cluster_id=0, replica_addresses=sys.argv[1])
account = lambda number, **fields: tb.Account(id=number, ledger=1, code=1, **fields)
transfer = lambda number, **fields: tb.Transfer(
    **{**dict(id=number, debit_account_id=1, credit_account_id=2, amount=10, ledger=1, code=1),
       **fields})
old = sys.argv[2] == "sparse"  # before 0.17 a reply lists only what failed
failed = lambda results: [int(r.result if old else r.status) for r in results
                          if old or int(r.status) != 0xFFFFFFFF]
assert failed(client.create_accounts(
    [account(1, flags=tb.AccountFlags.HISTORY), account(2), account(1, flags=8)])) == [21]
assert failed(client.create_transfers([
    transfer(1), transfer(2, flags=tb.TransferFlags.PENDING), transfer(1, amount=11)])) == [39]
assert failed(client.create_transfers([
    transfer(3, flags=tb.TransferFlags.POST_PENDING_TRANSFER, pending_id=2)])) == []
assert failed(client.create_transfers([
    transfer(4, flags=tb.TransferFlags.LINKED), transfer(5, code=0)])) == [1, 20]
(one, two) = client.lookup_accounts([1, 2])
assert (one.debits_posted, two.credits_posted) == (20, 20), (one, two)
assert [t.id for t in client.lookup_transfers([3, 9, 1])] == [3, 1]
both = tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS
zero = dict(user_data_128=0, user_data_64=0, user_data_32=0, code=0,
            timestamp_min=0, timestamp_max=0, limit=10)
chosen = tb.AccountFilter(account_id=1, flags=both, **zero)
assert [t.id for t in client.get_account_transfers(chosen)] == [1, 2, 3]
assert [b.debits_posted for b in client.get_account_balances(chosen)] == [10, 10, 20]
everything = tb.QueryFilter(ledger=1, flags=tb.QueryFilterFlags.REVERSED, **zero)
assert [t.id for t in client.query_transfers(everything)] == [3, 2, 1]
assert [a.id for a in client.query_accounts(everything)] == [2, 1]
client.close()
print("passed")
"""


def _smoke(server: ServerProcess, form: str, path: Path | None = None) -> None:
    where = {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [sys.executable, "-c", _SMOKE, server.addresses, form],
        env={"PATH": "/usr/bin:/bin", **where},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "passed", done.stderr


def test_the_pinned_client_passes(emulator_process: ServerProcess) -> None:
    _smoke(emulator_process, "dense")


@pytest.mark.slow
def test_a_client_of_0_16_passes(emulator_process: ServerProcess, tmp_path: Path) -> None:
    target = tmp_path / "client"
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    for interpreter in (sys.executable, "python3"):
        installed = subprocess.run(
            [interpreter, *command, "tigerbeetle==0.16.70"],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if installed.returncode == 0:
            break
    else:
        pytest.skip(
            f"tigerbeetle 0.16.70 not to be had from an index: {installed.stderr.strip()[-200:]}"
        )
    _smoke(emulator_process, "sparse", target)
