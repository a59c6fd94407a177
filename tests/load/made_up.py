"""How much memory an audit and a migration take, and how long: on a ledger that is made up.

``python -m tests.load.made_up audit --transfers 20000000`` and ``… migrate …``. No server runs: the
ledger is arithmetic, so nothing but the program itself takes time and memory, and its size is only
a number. Transfers of every kind are in it: holds that are posted or run out, chains, transfers
without an answer, refused ones. The audit's record is 144 bytes a transfer, in a folder of its own.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from unittest.mock import patch

import click
import numpy as np

from cluster.operate.migrate import command, plan
from cluster.operate.migrate.clusters import Cluster, Newest
from cluster.operate.migrate.passes import Move
from loadtests.client.records import (
    ACCOUNT,
    BATCH_MAX,
    CREATED,
    LINKED,
    MUST_NOT_OVERDRAW,
    PENDING,
    POST,
    RECORD,
    TRANSFER,
    UNANSWERED,
    Array,
    Rows,
)
from loadtests.proof import audit
from loadtests.run import runs
from tests.load.samples import manifest, result

TAG, LEDGER, WORKERS, ACCOUNTS = 117, 978, 4, 2000  # accounts of each worker, beside its first
STEP_NS = 1000
_SHIFT, _FIRST = 40, 10**12
_REFUSED = 54


class Ledger:
    """Transfer ``n`` of ``count``: all that is in it follows from its number."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.began = time.time_ns() - 10 * 86400 * 10**9

    def sent(self, start: int, stop: int) -> Array:
        """As they were sent, by number; four workers take turns."""
        n = np.arange(start, stop, dtype=np.uint64)
        worker, k = n % np.uint64(WORKERS), n // np.uint64(WORKERS)
        kind = k % np.uint64(10)
        is_post = (kind == 1) & (k % np.uint64(50) != 41)  # a fifth of the holds run out
        of = k - is_post  # a post moves what its hold has held
        rows = np.zeros(len(n), TRANSFER)
        high = worker << np.uint64(_SHIFT)
        rows["id"][:, 0], rows["id"][:, 1] = high | k + np.uint64(_FIRST), TAG
        wallet = np.uint64(1) + of * np.uint64(7919) % np.uint64(ACCOUNTS)
        rows["debit_account_id"][:, 0] = high  # the outside world
        rows["credit_account_id"][:, 0] = high | wallet
        rows["debit_account_id"][:, 1] = rows["credit_account_id"][:, 1] = TAG
        rows["amount"][:, 0] = 1 + of % np.uint64(97)
        rows["user_data_64"], rows["user_data_32"] = TAG, worker
        rows["ledger"], rows["code"] = LEDGER, 1
        rows["flags"][kind == 0], rows["timeout"][kind == 0] = PENDING, 1
        rows["flags"][is_post] = POST
        rows["pending_id"][is_post] = rows["id"][is_post] - np.array([1, 0], np.uint64)
        rows["flags"][kind == 2] = LINKED
        chain = rows["id"] - np.array([1, 0], np.uint64) * (kind == 3)[:, None]
        rows["user_data_128"] = chain * ((kind == 2) | (kind == 3))[:, None]
        return rows

    def stamps(self, start: int, stop: int) -> Array:
        """When each was executed."""
        return np.arange(start, stop, dtype=np.uint64) * np.uint64(STEP_NS) + np.uint64(self.began)

    def status(self, start: int, stop: int) -> Array:
        """All holds, posts and chains are created; of others some are refused, some unanswered."""
        n = np.arange(start, stop)
        k = n // WORKERS
        status = np.full(len(n), CREATED)
        is_plain = k % 10 > 3
        status[is_plain & (k % 1001 == 0)] = UNANSWERED
        status[is_plain & (k % 1003 == 0)] = _REFUSED
        return status

    def pages(self, start: int, stop: int, *, all_of_them: bool) -> Iterator[Array]:
        """As the ledger gives them; without the refused ones, or with those for a migration."""
        for first in range(start, stop, BATCH_MAX):
            last = min(stop, first + BATCH_MAX)
            rows = self.sent(first, last)
            rows["timestamp"] = self.stamps(first, last)
            yield rows if all_of_them else rows[self.status(first, last) != _REFUSED]

    def accounts(self, *, all_of_them: bool) -> Array:
        """With the balances that the stored transfers add up to."""
        size = ACCOUNTS + 1
        posted = np.zeros((2, WORKERS * size), np.uint64)
        for rows in self.pages(0, self.count, all_of_them=all_of_them):
            moved = rows[(rows["flags"] & PENDING) == 0]
            for side, ends in enumerate((moved["debit_account_id"], moved["credit_account_id"])):
                sums = np.bincount(
                    places(ends), moved["amount"][:, 0].astype(float), WORKERS * size
                )
                posted[side] += sums.astype("u8")
        found = np.zeros(WORKERS * size, ACCOUNT)
        n = np.arange(len(found))
        found["id"][:, 0], found["id"][:, 1] = n // size << _SHIFT | n % size, TAG
        found["flags"] = np.where(n % size, MUST_NOT_OVERDRAW, 0)
        found["ledger"] = found["code"] = LEDGER
        found["timestamp"] = self.began - len(found) + n
        found["debits_posted"][:, 0], found["credits_posted"][:, 0] = posted
        return found


def places(ids: Array) -> Array:
    """Which account each of these ids is."""
    size, low = np.uint64(ACCOUNTS + 1), ids[:, 0]
    found: Array = (low >> np.uint64(_SHIFT)) * size + (low & np.uint64(0xFFFF))
    return found.astype(int)


# -- the audit -----------------------------------------------------------------------------------


class Read:
    """What the audit asks of a cluster."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._accounts = ledger, ledger.accounts(all_of_them=False)

    def connect(self, *_: object, **__: object) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing was opened."""

    def transfers_of_run(self, _tag: int) -> Iterator[Array]:
        """All of them."""
        return self._ledger.pages(0, self._ledger.count, all_of_them=False)

    def read_accounts(self, ids: Array) -> Array:
        """By the halves of their ids."""
        return self._accounts[places(ids)]


def write_run(ledger: Ledger, run: Path) -> None:
    """A run's directory: its manifest, its result, and its workers' records."""
    of = {"run": run.name, "tag": str(TAG)}
    made = manifest().model_copy(update=of)
    done = result().model_copy(
        update={"manifest": made, "transfers_sent": ledger.count, "workers": WORKERS}
    )
    runs.write_json(run / "run.json", made.model_dump_json())
    runs.write_json(run / "result.json", done.model_dump_json())
    accounts = ledger.accounts(all_of_them=False)
    for side in ("debits_posted", "credits_posted"):
        accounts[side] = 0
    (run / "accounts-0.bin").write_bytes(accounts.tobytes())
    files = [(run / f"record-{worker}.bin").open("wb") for worker in range(WORKERS)]
    for first in range(0, ledger.count, 1 << 16):
        last = min(ledger.count, first + (1 << 16))
        lines = np.zeros(last - first, RECORD)
        lines["sent"] = ledger.sent(first, last)
        status = ledger.status(first, last)
        lines["result"]["status"] = status
        lines["result"]["timestamp"] = np.where(status == UNANSWERED, 0, ledger.stamps(first, last))
        for worker, file in enumerate(files):
            file.write(lines[(np.arange(first, last) % WORKERS) == worker].tobytes())
    for file in files:
        file.close()


def audited(ledger: Ledger, folder: Path) -> str:
    """Audit it; the verdict."""
    run = folder / "20270115-080000-0001"
    if not run.is_dir():
        run.mkdir()
        write_run(ledger, run)
        forget_peak()
    begun = time.monotonic()
    with (
        patch.object(audit, "Ledger", lambda *_, **__: Read(ledger)),
        patch.object(audit, "way", lambda *_, **__: ""),
    ):
        found = audit.audit(run)
    for check in found.checks:
        print(f"  {check.verdict:8} {check.name}: {check.detail}")
    print(f"audit {found.verdict}: {ledger.count:,} transfers in {time.monotonic() - begun:.1f} s")
    return found.verdict


# -- the migration -------------------------------------------------------------------------------


class Old:
    """The old cluster: nobody writes to it any more."""

    name = label = "FROM"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._accounts = ledger, ledger.accounts(all_of_them=True)

    def newest(self) -> Newest:
        """How far it goes."""
        last = self._ledger.began + (self._ledger.count - 1) * STEP_NS
        return Newest(int(self._accounts["timestamp"][-1]), last)

    def accounts(self, after: int = 0, until: int = 0) -> Iterator[Array]:
        """Page by page."""
        return paged(self._accounts, after, until)

    def transfers(self, after: int = 0, until: int = 0) -> Iterator[Array]:
        """Page by page."""
        ledger = self._ledger
        start = max(0, (after - ledger.began) // STEP_NS + 1)
        stop = (until - ledger.began) // STEP_NS + 1 if until else ledger.count
        return ledger.pages(start, min(stop, ledger.count), all_of_them=True)


class New:
    """The new cluster: what is sent to it is kept in a file; its balances are those of the old."""

    name = label = named = "TO"

    def __init__(self, old: Old, folder: Path) -> None:
        self._old, self._made = old, np.empty(0, ACCOUNT)
        self._path = folder / "transfers.bin"
        self._file = self._path.open("wb", buffering=0)
        self._stamps = np.empty(0, np.uint64)
        self._count, self._read, self._newest = 0, 0, 0

    def newest(self) -> Newest:
        """How far it goes."""
        return Newest(int(self._made["timestamp"].max(initial=0)), self._newest)

    def create_accounts(self, accounts: Array) -> None:
        """Keep them."""
        self._made = np.concatenate([self._made, accounts])

    def create_transfers(self, transfers: Array) -> None:
        """Keep them."""
        self._file.write(transfers.tobytes())
        self._count += len(transfers)
        self._newest = int(transfers["timestamp"][-1])

    def accounts(self, after: int = 0, until: int = 0) -> Iterator[Array]:
        """Page by page."""
        found = plan.as_imported(np.concatenate(list(self._old.accounts())))
        return paged(found[: len(self._made)], after, until)

    def transfers(self, _after: int = 0, _until: int = 0) -> Iterator[Array]:
        """What was written since the last time."""
        offset, count = self._read * TRANSFER.itemsize, self._count - self._read
        self._read = self._count
        yield np.fromfile(self._path, TRANSFER, count, offset=offset)


def paged(rows: Rows, after: int, until: int) -> Iterator[Array]:
    """Between two timestamps, in pages."""
    for start in range(0, len(rows), BATCH_MAX):
        page = rows[start : start + BATCH_MAX]
        stamps = page["timestamp"]
        wanted = page[(stamps > after) & ((stamps <= until) | (until == 0))]
        if len(wanted):
            yield wanted


def migrated(ledger: Ledger, folder: Path) -> str:
    """Migrate it; the verdict."""
    old = Old(ledger)
    new, begun = New(old, folder), time.monotonic()
    forget_peak()
    move = Move(cast("Cluster", old), cast("Cluster", new), folder)
    problems = command.migrate(move, None)
    for problem in problems:
        print(f"  {problem}")
    verdict = "failed" if problems else "passed"
    print(f"migration {verdict}: {ledger.count:,} transfers in {time.monotonic() - begun:.1f} s")
    return verdict


# -- memory --------------------------------------------------------------------------------------


def forget_peak() -> None:
    """Begin to measure anew: what comes before belongs to the benchmark."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most that was resident since."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


@click.command()
@click.argument("what", type=click.Choice(["audit", "migrate"]))
@click.option("--transfers", default=20_000_000, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Kept, if named.")
def main(what: str, transfers: int, folder: Path | None) -> None:
    """Audit or migrate a made-up ledger; tell the verdict, the time and the memory."""
    work = {"audit": audited, "migrate": migrated}[what]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as own:
        verdict = work(Ledger(transfers), folder or Path(own))
    print(f"{what} {verdict}: peak {peak_mib():.0f} MiB resident")


if __name__ == "__main__":
    main()
