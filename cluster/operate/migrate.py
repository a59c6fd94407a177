"""``make migrate FROM= TO=``: a whole ledger into a new, empty cluster, of any size.

FROM and TO are inventories, or CLUSTER_ID@IP:PORT,IP:PORT. The services in front of the old cluster
must be stopped first: what it acknowledges meanwhile is found, and fails the migration. Holds that
run out within a minute are waited for. May be repeated: it goes on after the newest transfer that
the new cluster has. Ends with a proof by reading both. It holds 128 bytes per transfer in memory,
four times over.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import click
import numpy as np
import tigerbeetle as tb

from cluster import config
from cluster.config import inventory
from cluster.operate import migration
from cluster.operate.migration import Plan
from cluster.refusal import Refusal, begun
from cluster.runtimes import tunnel
from loadtests.client import preflight
from loadtests.client.bridge import PACKET_ERRORS, BridgeError, NativeClient, Unanswered, log_lines
from loadtests.client.records import (
    ACCOUNT,
    ACCOUNT_EXISTS,
    BATCH_MAX,
    CREATED,
    EXISTS,
    QUERY_FILTER,
    RESULT,
    TRANSFER,
    Array,
)

#: A view change, or a new release taking over, is waited for; a cluster that is gone is not.
DEADLINE_S = 60.0
_CONNECT_TIMEOUT_S = 15.0
#: How long holds that may still run out are waited for; those that take longer are refused.
HOLDS_WAIT_S = 60.0
_PROGRESS_S = 2.0
_REVERSED = int(tb.QueryFilterFlags.REVERSED)


class Place(NamedTuple):
    """Which cluster, and where."""

    cluster_id: int
    addresses: str
    reach: str = ""  # the addresses from here, where those are others
    named: str = ""  # its INVENTORY=, where one was given

    def is_of(self, other: Place) -> bool:
        """Whether both are one cluster, however each is named."""
        shared = {*self.addresses.split(",")} & {*other.addresses.split(",")}
        return self.cluster_id == other.cluster_id and bool(shared)


class Cluster:
    """One of the two clusters, with one client."""

    def __init__(self, name: str, place: Place) -> None:
        """Connect. Raises Refusal when nothing answers."""
        cluster_id, reach = place.cluster_id, place.reach or place.addresses
        self.name, self.label = name, f"{name} (cluster {cluster_id} at {place.addresses})"
        self.named = place.named or "INVENTORY=…"
        self._client = NativeClient(cluster_id, reach)
        try:
            self._client.call(tb.Operation.LOOKUP_ACCOUNTS, bytes(16), _CONNECT_TIMEOUT_S)
        except Unanswered:
            why = preflight.diagnose(
                cluster_id, reach, _CONNECT_TIMEOUT_S, log_lines(), place.named
            )
            raise Refusal(f"{name}: {why}") from None

    def accounts(self) -> Array:
        """All accounts, by timestamp."""
        return self._all(tb.Operation.QUERY_ACCOUNTS, ACCOUNT, f"{self.name}: accounts read")

    def transfers(self) -> Array:
        """All transfers, by timestamp."""
        return self._all(tb.Operation.QUERY_TRANSFERS, TRANSFER, f"{self.name}: transfers read")

    def newest_transfer(self) -> Array:
        """The newest transfer, in an array of one; empty when there is none."""
        query = _query(limit=1, flags=_REVERSED)
        return self._ask(tb.Operation.QUERY_TRANSFERS, query, TRANSFER)

    def create(self, operation: int, events: Array) -> Array:
        """One RESULT each, of accounts or transfers."""
        return self._ask(operation, events.tobytes(), RESULT)

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def _all(self, operation: int, layout: np.dtype[Any], what: str) -> Array:
        pages, count, progress, after = [], 0, _Progress(what), 0
        while True:
            page = self._ask(operation, _query(timestamp_min=after + 1, limit=BATCH_MAX), layout)
            pages.append(page)
            count += len(page)
            progress.show(count)
            if len(page) < BATCH_MAX:
                return np.concatenate(pages)
            after = int(page["timestamp"][-1])

    def _ask(self, operation: int, data: bytes, layout: np.dtype[Any]) -> Array:
        try:
            reply = self._client.call(operation, data, DEADLINE_S)
        except Unanswered:
            raise Refusal(
                f"{self.label}: expected an answer within {DEADLINE_S:g} s, found none. "
                f"Fix: bring it back (make status {self.named}), then repeat: nothing is imported "
                "twice"
            ) from None
        if reply.status != tb.PacketStatus.OK:
            raise BridgeError(PACKET_ERRORS[reply.status])
        return np.frombuffer(reply.body, layout)


class _Progress:
    """A line every two seconds."""

    def __init__(self, what: str) -> None:
        self._what, self._shown = what, time.monotonic()

    def show(self, count: int, of: int | None = None) -> None:
        if time.monotonic() - self._shown >= _PROGRESS_S:
            self._shown = time.monotonic()
            print(f"  {self._what}: {count:,}{f' of {of:,}' if of else ''}", flush=True)


def check_target(planned: Plan, target: Cluster) -> tuple[int, int]:
    """The newest timestamps (account, transfer) that it has; it holds nothing foreign.

    Raises Refusal: only a new cluster, or one that a migration has begun to fill, will do.
    """
    there = target.accounts()
    known = np.isin(there["timestamp"], planned.accounts["timestamp"])
    newest = target.newest_transfer()
    is_known = np.isin(newest["timestamp"], planned.transfers["timestamp"]).all()
    if not (known.all() and is_known):
        found = f"{int((~known).sum())} accounts of its own" if not known.all() else "transfers"
        raise Refusal(
            f"TO: expected a cluster that never had an account, found {found} in {target.label}: "
            "what is older could not be imported after that. Fix: format a new one, and start it "
            f"with `make up {target.named} CANARY=read`, which writes nothing"
        )
    return int(there["timestamp"].max(initial=0)), int(newest["timestamp"].max(initial=0))


def fill(planned: Plan, target: Cluster) -> int:
    """Import what the target does not have yet; how many transfers. Raises Refusal."""
    accounts_until, transfers_until = check_target(planned, target)
    accounts = planned.accounts[planned.accounts["timestamp"] > accounts_until]
    for start in range(0, len(accounts), BATCH_MAX):
        part = accounts[start : start + BATCH_MAX]
        results = target.create(tb.Operation.CREATE_ACCOUNTS, part)
        _require(results, part, "account", ACCOUNT_EXISTS)
    transfers = planned.transfers[planned.transfers["timestamp"] > transfers_until]
    done, progress = 0, _Progress(f"{target.name}: transfers imported")
    for part in migration.batches(transfers):
        _require(target.create(tb.Operation.CREATE_TRANSFERS, part), part, "transfer", EXISTS)
        done += len(part)
        progress.show(done, len(transfers))
    return done


def read_settled(source: Cluster) -> tuple[Array, Array, Plan]:
    """Accounts, transfers and their plan, once no hold can run out any more. Raises Refusal.

    Holds that end within HOLDS_WAIT_S are waited for, and the ledger is read again: their end has
    changed its balances. New ones do not prolong that.
    """
    deadline_ns = time.time_ns() + int(HOLDS_WAIT_S * 1e9)
    while True:
        accounts, transfers = source.accounts(), source.transfers()
        holds = migration.alive(transfers, now_ns := time.time_ns())
        ends_ns = now_ns + holds.left_ns
        if not holds.count or ends_ns > deadline_ns:
            return accounts, transfers, migration.plan(accounts, transfers, now_ns)
        print(f"{source.name}: {holds.count:,} holds may still run out: waiting until none can")
        while (left_s := (ends_ns - time.time_ns()) / 1e9) > 0:
            print(f"  {source.name}: the last one ends in {left_s:.0f} s", flush=True)
            time.sleep(min(left_s, _PROGRESS_S))


def migrate(source: Cluster, target: Cluster) -> list[str]:
    """Move everything; how the two differ afterwards. Raises Refusal."""
    accounts, transfers, planned = read_settled(source)
    print(
        f"{source.label}: {len(accounts):,} accounts, {len(transfers):,} transfers; "
        f"{planned.left_out:,} holds that ran out are left out"
    )
    begun = time.monotonic()
    done = fill(planned, target)
    took = time.monotonic() - begun
    a_second = done / max(took, 1e-9)
    print(f"{target.label}: {done:,} transfers imported in {took:.1f} s ({a_second:,.0f} a second)")
    since, differences = "the old cluster, since:", migration.differences
    found = differences(accounts, source.accounts(), f"{since} accounts")
    found += differences(transfers[-1:], source.newest_transfer(), f"{since} newest transfer")
    if found:
        return [*found, "the old cluster moved on: stop the services in front of it, then repeat"]
    shown = migration.as_imported(accounts)
    found = differences(shown, target.accounts(), "accounts and balances")
    return found + differences(planned.transfers, target.transfers(), "transfers")


def _require(results: Array, sent: Array, kind: str, exists: int) -> None:
    """Each was created, or was there already. Raises Refusal with the first that was not."""
    wrong = np.flatnonzero(~np.isin(results["status"], (CREATED, exists)))
    if len(wrong):
        row = int(wrong[0])
        statuses = tb.CreateAccountStatus if kind == "account" else tb.CreateTransferStatus
        raise Refusal(
            f"{kind} {int(sent['id'][row][0]) | int(sent['id'][row][1]) << 64}: expected it to be "
            f"imported, found {statuses(int(results['status'][row])).name}. Fix: nothing was lost; "
            "the new cluster is not to be used: format another, and report this"
        )


def _query(*, limit: int, timestamp_min: int = 0, flags: int = 0) -> bytes:
    query = np.zeros(1, QUERY_FILTER)
    query["limit"], query["timestamp_min"], query["flags"] = limit, timestamp_min, flags
    return query.tobytes()


def _resolve(variable: str, named: str) -> Place:
    """The place of an inventory, or of ID@ADDRESSES. Raises Refusal."""
    cluster_id, at, addresses = named.partition("@")
    if at and cluster_id.isdecimal() and int(cluster_id) < 1 << 128:
        return Place(int(cluster_id), addresses)
    if at or not named:
        wanted = "an inventory, or CLUSTER_ID@IP:PORT,IP:PORT"
        fix = f"{variable}=inventories/production.py"
        raise Refusal(variable, expected=wanted, found=named or "nothing", fix=fix)
    deployment = tunnel.reached(inventory.read(named))
    listed, reach = config.addresses(deployment.listed), deployment.client_addresses
    return Place(deployment.cluster.id, listed, reach, deployment.named)


@click.command()
@click.option("--from", "source", default="", metavar="CLUSTER")
@click.option("--to", "target", default="", metavar="CLUSTER")
def main(source: str, target: str) -> int:
    """Move a whole ledger into a new, empty cluster, and prove that both are equal.

    CLUSTER is an inventory, or CLUSTER_ID@IP:PORT,IP:PORT.

    Exit codes: 0 both ledgers are equal, 1 they are not, 2 refused (nothing was written).
    """
    places = {"FROM": _resolve("FROM", source), "TO": _resolve("TO", target)}
    if places["FROM"].is_of(places["TO"]):
        raise Refusal("TO: expected another cluster than FROM, found the same. Fix: TO=")
    old, new = (Cluster(name, place) for name, place in places.items())
    try:
        with begun():
            problems = migrate(old, new)
    finally:
        old.close()
        new.close()
    for problem in problems:
        print(f"  {problem}")
    if problems:
        print(f"migration FAILED: do not use the new cluster, {new.label}")
        return 1
    print(f"migration passed: {new.label}: every account, balance and transfer is equal")
    return 0
