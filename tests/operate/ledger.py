"""A ledger to operate on, through the official client in a process of its own: written and read.

    python -m tests.operate.ledger ADDRESSES ID write FIRST COUNT  transfers FIRST, ..
    python -m tests.operate.ledger ADDRESSES ID read LAST  accounts, and transfers to LAST
    python -m tests.operate.ledger ADDRESSES ID stream FIRST  one after the other, until killed

Transfer N moves N from one of ten accounts to the next. A streamed transfer's line, its id and the
time of its acknowledgement, is printed only once the server has acknowledged it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import REPOSITORY
from cluster.tigerbeetle.waiting import wait_until
from tests.clusters import Sandbox

LEDGER, ACCOUNTS, BATCH = 700, 10, 1000
#: Between two streamed transfers: as fast as it can, a stream takes a processor from all others.
PAUSE_S = 0.01
#: A client that has lost its primary waits for its next try.
_GOES_ON_TIMEOUT_S = 600
_COUNT_TIMEOUT_S = 1200


@dataclass(frozen=True)
class Ledger:
    """The ledger at some addresses."""

    addresses: str
    cluster_id: int = 0
    #: Where another release's client is, which goes before the installed one.
    pythonpath: str = ""

    def write(self, first: int, count: int) -> None:
        """Returns when all are acknowledged."""
        assert self._ask("write", first, count) == count

    def read(self, last: int) -> Any:
        """All that can be seen of it: every account's balances, every transfer's fields."""
        return self._ask("read", last)

    @contextmanager
    def streaming(self, first: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Transfers one after the other for as long as the block runs; each into ``log``."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command("stream", first),
                cwd=REPOSITORY,
                env=self._environ,
                stdout=output,
                stderr=subprocess.DEVNULL,
            )
            try:
                yield process
                assert process.poll() is None, "the client has ended by itself"
            finally:
                process.kill()
                process.wait()

    @property
    def _environ(self) -> dict[str, str]:
        return dict(os.environ) | ({"PYTHONPATH": self.pythonpath} if self.pythonpath else {})

    def _command(self, *words: object) -> list[str]:
        return [
            sys.executable,
            "-m",
            "tests.operate.ledger",
            self.addresses,
            str(self.cluster_id),
            *map(str, words),
        ]

    def _ask(self, *words: object) -> Any:
        done = subprocess.run(
            self._command(*words),
            cwd=REPOSITORY,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=_GOES_ON_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr[-1000:]
        return json.loads(done.stdout)


def ledger(made: Sandbox, pythonpath: str = "") -> Ledger:
    """That of a sandbox's replicas, by another release's client where that is named."""
    return Ledger(",".join(f"127.0.0.1:{port}" for port in made.ports), pythonpath=pythonpath)


def await_one_after(instant: float, log: Path) -> None:
    """Wait until a transfer was acknowledged after ``instant`` (seconds since 1970)."""
    wait_until(
        lambda: (bool(lines := acknowledged(log)) and lines[-1][1] > instant, str(lines[-1:])),
        what="the stream to go on",
        timeout_s=_GOES_ON_TIMEOUT_S,
    )


def await_count(count: int, log: Path) -> None:
    """Wait until so many transfers were acknowledged."""
    wait_until(
        lambda: ((found := len(acknowledged(log))) >= count, f"{found}"),
        what=f"{count} transfers",
        timeout_s=_COUNT_TIMEOUT_S,
    )


def acknowledged(log: Path) -> list[tuple[int, float]]:
    """Streamed transfers in their order: id, and when they were acknowledged."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(int(line[0]), float(line[1])) for line in lines if len(line) == 2]


def _transfer(tb: Any, number: int) -> Any:
    return tb.Transfer(
        id=number,
        debit_account_id=1 + number % ACCOUNTS,
        credit_account_id=1 + (number + 1) % ACCOUNTS,
        amount=number,
        ledger=LEDGER,
        code=1,
    )


def _write(client: Any, tb: Any, first: int, count: int) -> int:
    for begin in range(first, first + count, BATCH):
        batch = range(begin, min(begin + BATCH, first + count))
        results = client.create_transfers([_transfer(tb, number) for number in batch])
        assert all(r.status == tb.CreateTransferStatus.CREATED for r in results)
    return count


def _read(client: Any, last: int) -> dict[str, Any]:
    accounts = client.lookup_accounts(list(range(1, ACCOUNTS + 1)))
    transfers = []
    for begin in range(1, last + 1, BATCH):
        batch = list(range(begin, min(begin + BATCH, last + 1)))
        transfers += client.lookup_transfers(batch)
    return {
        "accounts": [[a.id, a.debits_posted, a.credits_posted, a.timestamp] for a in accounts],
        "transfers": [
            [t.id, t.debit_account_id, t.credit_account_id, t.amount, t.timestamp]
            for t in transfers
        ],
    }


def main() -> None:
    import tigerbeetle as tb

    addresses, cluster_id, verb, first, *rest = sys.argv[1:]
    with tb.ClientSync(cluster_id=int(cluster_id), replica_addresses=addresses) as client:
        if verb == "read":
            print(json.dumps(_read(client, int(first))))
            return
        client.create_accounts(
            [tb.Account(id=i + 1, ledger=LEDGER, code=1) for i in range(ACCOUNTS)]
        )
        if verb == "write":
            print(_write(client, tb, int(first), int(rest[0])))
            return
        number = int(first)
        while True:
            _write(client, tb, number, 1)
            print(number, time.time(), flush=True)
            number += 1
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
