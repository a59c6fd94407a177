"""The two clusters of a migration: where they are, and what is read from them and written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gevent
import gevent.event
import numpy as np
import tigerbeetle as tb

from cluster import config
from cluster.config import inventory
from cluster.refusal import Refusal
from cluster.runtimes import tunnel
from loadtests.client import preflight
from loadtests.client.bridge import (
    PACKET_ERRORS,
    BridgeError,
    NativeClient,
    Reply,
    Unanswered,
    log_lines,
)
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


def resolve(variable: str, named: str) -> Place:
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


class Newest(NamedTuple):
    """The timestamps of the newest account and transfer; 0 for none."""

    account: int
    transfer: int


class Cluster:
    """One of the two clusters, with one client. Pages come in order of timestamp."""

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

    def accounts(self, after: int = 0, until: int = 0) -> Iterator[Array]:
        """All accounts newer than ``after`` and up to ``until`` (0: all), page by page."""
        return self._pages(tb.Operation.QUERY_ACCOUNTS, ACCOUNT, after, until)

    def transfers(self, after: int = 0, until: int = 0) -> Iterator[Array]:
        """All transfers newer than ``after`` and up to ``until`` (0: all), page by page."""
        return self._pages(tb.Operation.QUERY_TRANSFERS, TRANSFER, after, until)

    def newest(self) -> Newest:
        """How far the ledger goes."""
        query = _query(limit=1, flags=_REVERSED)
        operations = tb.Operation.QUERY_ACCOUNTS, tb.Operation.QUERY_TRANSFERS
        replies = [self._send(operation, query) for operation in operations]
        rows = [
            self._receive(reply, layout)
            for reply, layout in zip(replies, (ACCOUNT, TRANSFER), strict=True)
        ]
        return Newest(*(int(each["timestamp"].max(initial=0)) for each in rows))

    def create_accounts(self, accounts: Array) -> None:
        """Create them all. Raises Refusal with the first that was not."""
        self._create(tb.Operation.CREATE_ACCOUNTS, accounts, "account", ACCOUNT_EXISTS)

    def create_transfers(self, transfers: Array) -> None:
        """Create them all. Raises Refusal with the first that was not."""
        self._create(tb.Operation.CREATE_TRANSFERS, transfers, "transfer", EXISTS)

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def _create(self, operation: int, events: Array, kind: str, exists: int) -> None:
        results = self._receive(self._send(operation, events.tobytes()), RESULT)
        wrong = np.flatnonzero(~np.isin(results["status"], (CREATED, exists)))
        if len(wrong):
            low, high = (int(half) for half in events["id"][wrong[0]])
            statuses = tb.CreateAccountStatus if kind == "account" else tb.CreateTransferStatus
            found = statuses(int(results["status"][wrong[0]])).name
            raise Refusal(
                f"{kind} {low | high << 64}: expected it to be imported, found {found}. Fix: "
                "nothing was lost; the new cluster is not to be used: format another, and report "
                "this"
            )

    def _pages(
        self, operation: int, layout: np.dtype[Any], after: int, until: int
    ) -> Iterator[Array]:
        """Not empty. The next page is on its way while one is looked at."""
        if until and until <= after:
            return
        query = _query(timestamp_min=after + 1, timestamp_max=until, limit=BATCH_MAX)
        coming = self._send(operation, query)
        while True:
            page = self._receive(coming, layout)
            is_last = len(page) < BATCH_MAX
            if not is_last:
                last = int(page["timestamp"][-1])
                query = _query(timestamp_min=last + 1, timestamp_max=until, limit=BATCH_MAX)
                is_last = bool(until) and last >= until
            if not is_last:
                coming = self._send(operation, query)
            if len(page):
                yield page
            if is_last:
                return

    def _send(self, operation: int, data: bytes) -> gevent.event.AsyncResult[Reply]:
        replied: gevent.event.AsyncResult[Reply] = gevent.event.AsyncResult()
        self._client.submit(operation, data, replied.set)
        return replied

    def _receive(self, replied: gevent.event.AsyncResult[Reply], layout: np.dtype[Any]) -> Array:
        try:
            reply = replied.get(timeout=DEADLINE_S)
        except gevent.Timeout:
            raise Refusal(
                f"{self.label}: expected an answer within {DEADLINE_S:g} s, found none. "
                f"Fix: bring it back (make status {self.named}), then repeat: nothing is imported "
                "twice"
            ) from None
        if reply.status != tb.PacketStatus.OK:
            raise BridgeError(PACKET_ERRORS[reply.status])
        return np.frombuffer(reply.body, layout)


def _query(*, limit: int, timestamp_min: int = 0, timestamp_max: int = 0, flags: int = 0) -> bytes:
    query = np.zeros(1, QUERY_FILTER)
    query["limit"], query["flags"] = limit, flags
    query["timestamp_min"], query["timestamp_max"] = timestamp_min, timestamp_max
    return query.tobytes()
