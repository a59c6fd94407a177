"""What an empty ledger for every test costs, as ratios to tests that share a ledger.

The same test body runs a hundred times through the official client, as a wallet's suite would:
on one ledger that fills up (the reference), on one that is reset before each test, on one that is
put back to a snapshot, and, a few times only, on an emulator and a client of each test's own. The
ways take turns, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tigerbeetle as tb

from benchmarks.results import tell
from tigerbeetle_emulator import Emulator, run

#: Most of a client's first request is the client's own wait: a few suffice to see it.
OWN_TESTS = 3

Test = Callable[[int], None]


def wallet_test(client: tb.ClientSync, first_id: int) -> None:
    """Open two wallets, pay from one to the other, look both up."""
    payer, payee = first_id, first_id + 1
    opened = client.create_accounts(
        [tb.Account(id=number, ledger=1, code=1) for number in (payer, payee)]
    )
    pay = tb.Transfer(
        id=tb.id(), debit_account_id=payer, credit_account_id=payee, amount=5, ledger=1, code=1
    )
    paid = client.create_transfers([pay])
    statuses = [result.status for result in (*opened, *paid)]
    created = [tb.CreateAccountStatus.CREATED] * 2 + [tb.CreateTransferStatus.CREATED]
    assert statuses == created, f"not created: {statuses}"
    assert [account.debits_posted for account in client.lookup_accounts([payer, payee])] == [5, 0]


@contextlib.contextmanager
def serving() -> Iterator[tuple[Emulator, tb.ClientSync]]:
    """An emulator and a client that has sent its first request."""
    with run() as emulator, tb.ClientSync(emulator.cluster_id, emulator.address) as client:
        client.lookup_accounts([1])
        yield emulator, client


def own(_number: int) -> None:
    """A test with an emulator and a client of its own."""
    with run() as emulator, tb.ClientSync(emulator.cluster_id, emulator.address) as client:
        wallet_test(client, 1)


def measure(tests: int, rounds: int) -> dict[str, object]:
    """Seconds for so many tests, in each way; medians of the rounds, and of the ratios."""
    with contextlib.ExitStack() as stack:
        shared, reset, restored = (stack.enter_context(serving()) for _ in range(3))
        empty = restored[0].snapshot()
        numbers = iter(range(1, 2 * tests * (rounds + 1) + 2, 2))

        def sharing(_number: int) -> None:
            wallet_test(shared[1], next(numbers))

        def resetting(_number: int) -> None:
            reset[0].reset()
            wallet_test(reset[1], 1)

        def restoring(_number: int) -> None:
            restored[0].restore(empty)
            wallet_test(restored[1], 1)

        ways: dict[str, tuple[Test, int]] = {
            "shared": (sharing, tests),
            "reset": (resetting, tests),
            "restore": (restoring, tests),
            "own": (own, OWN_TESTS),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, (test, count) in ways.items():
                started = time.perf_counter()
                for each in range(count):
                    test(each)
                if number:  # the first round warms up
                    seconds[name].append((time.perf_counter() - started) * tests / count)
    shared_s = seconds["shared"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(found, shared_s, strict=True))
        for name, found in seconds.items()
    }
    return {
        "benchmark": "life",
        "tests": tests,
        "rounds": rounds,
        "seconds": {name: round(statistics.median(found), 3) for name, found in seconds.items()},
        "ratio_to_shared": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def main() -> int:
    """Print the seconds and the ratios; 0 unless a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, help="after a warm-up")
    parser.add_argument("--json", type=Path, help="store the result here")
    arguments = parser.parse_args()
    result = measure(arguments.tests, arguments.rounds)
    tell(result, arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
