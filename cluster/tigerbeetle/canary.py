"""Health level 3: one long-lived client commits a transfer and reads it back within a bound.

The official client has no time-outs and aborts its process on a protocol error, so it runs in a
process of its own, ``python -m cluster.tigerbeetle.canary``. It reads ADDRESSES CLUSTER_ID, and
connects at once, which takes most of a second: other work fits in between. When its input ends, it
commits, and prints one JSON line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

#: The canary has its own ledger, so that its money never mixes with a wallet's.
LEDGER = 2**32 - 1
CODE = 1
#: Two fixed accounts, created once per cluster: "canary" in the high bits keeps clear of real ids.
ACCOUNT_DEBIT = (0x63616E617279 << 80) | 1
ACCOUNT_CREDIT = (0x63616E617279 << 80) | 2


@dataclass(frozen=True)
class Canary:
    """Whether the cluster commits. Latencies in milliseconds; ``detail`` says why not."""

    commits: bool
    detail: str
    commit_ms: float = 0.0
    read_ms: float = 0.0


#: CANARY=read in the environment: a cluster that will import accounts must not have any before, so
#: the canary only reads. The replicas commit a read as they commit a write.
READ_ONLY = "read"


class Probe:
    """A canary's process, from its start to the end of the ``with`` block."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "cluster.tigerbeetle.canary"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nothing, text=True
        )

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def connect(self, addresses: str, cluster_id: int) -> None:
        """Let it connect, from now on."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # its end has a code, which ``result`` tells
            self._process.stdin.write(f"{addresses} {cluster_id}\n")
            self._process.stdin.flush()

    def result(self, timeout_s: float) -> Canary:
        """Let it commit once and read back; never raises for a cluster that does not answer."""
        try:
            output, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Canary(False, f"no commit within {timeout_s:g} s")
        try:
            return Canary(**json.loads(output))
        except (ValueError, TypeError):
            return Canary(False, f"the client ended with code {self._process.returncode}")


def probe(addresses: str, cluster_id: int, timeout_s: float) -> Canary:
    """Commit once and read back, from nothing."""
    with Probe() as canary:
        canary.connect(addresses, cluster_id)
        return canary.result(timeout_s)


def _commit_and_read() -> Canary:
    import tigerbeetle as tb  # here: importing it starts nothing, but takes a while

    addresses, cluster_id = sys.stdin.readline().split()
    client = tb.ClientSync(cluster_id=int(cluster_id), replica_addresses=addresses)
    sys.stdin.read()
    if os.environ.get("CANARY") == READ_ONLY:
        begun = time.monotonic()
        client.lookup_accounts([ACCOUNT_DEBIT])
        ms = _ms(begun, time.monotonic())
        return Canary(True, "answered a read; nothing was written", read_ms=ms)
    accounts = (ACCOUNT_DEBIT, ACCOUNT_CREDIT)
    client.create_accounts([tb.Account(id=id_, ledger=LEDGER, code=CODE) for id_ in accounts])
    transfer = tb.Transfer(
        id=tb.id(),
        debit_account_id=ACCOUNT_DEBIT,
        credit_account_id=ACCOUNT_CREDIT,
        amount=1,
        ledger=LEDGER,
        code=CODE,
    )
    begun = time.monotonic()
    (created,) = client.create_transfers([transfer])
    committed = time.monotonic()
    found = client.lookup_transfers([transfer.id])
    read = time.monotonic()
    if created.status != tb.CreateTransferStatus.CREATED:
        return Canary(False, f"the canary transfer was refused: {created.status.name}")
    if len(found) != 1 or found[0].timestamp != created.timestamp:
        return Canary(False, "the canary transfer was acknowledged but could not be read back")
    return Canary(True, "committed and read back", _ms(begun, committed), _ms(committed, read))


def _ms(begun: float, ended: float) -> float:
    return round((ended - begun) * 1000, 3)


if __name__ == "__main__":
    print(json.dumps(_commit_and_read().__dict__), flush=True)
    os._exit(0)  # the client is not closed: its connections end with the process
