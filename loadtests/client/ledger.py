"""The requests that a wallet service sends to a cluster, through two clients: writes and reads.

Plain greenlet code: ``ledger.create_transfers(events)`` blocks its own greenlet and no other.
Works without locust; the audit uses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import gevent
import numpy as np
import tigerbeetle as tb

from loadtests.client import preflight
from loadtests.client.bridge import (
    PACKET_ERRORS,
    BridgeError,
    Combiner,
    NativeClient,
    Reply,
    Unanswered,
    Waits,
    log_lines,
)
from loadtests.client.records import (
    ACCOUNT,
    ACCOUNT_FILTER,
    BATCH_MAX,
    QUERY_FILTER,
    RESULT,
    TRANSFER,
    Array,
)

#: Called with every completed packet of transfers: events, results (None if it failed), seconds.
OnTransfers = Callable[[bytes, Array | None, float], None]
OnAccounts = Callable[[Array, float], None]

CONNECT_TIMEOUT_S = 5.0
CLIENTS_PER_LEDGER = 2


class Ledger:
    """A connection to one cluster. One client writes and one reads: neither queues on the other."""

    def __init__(
        self,
        cluster_id: int,
        addresses: str,
        *,
        deadline_s: float = 5.0,
        batch_max: int = BATCH_MAX,
        on_transfers: OnTransfers = lambda _events, _results, _seconds: None,
        on_accounts: OnAccounts = lambda _accounts, _seconds: None,
    ) -> None:
        """Start the clients; ``connect`` waits for them. Raises BridgeError."""
        self.cluster_id, self.addresses = cluster_id, addresses
        self.deadline_s, self.batch_max = deadline_s, batch_max
        self._on_transfers, self._on_accounts = on_transfers, on_accounts
        #: Of the call that has returned or raised last: to be read before anything else waits.
        self.waits: Waits = 0.0, 0.0
        self._writer = NativeClient(cluster_id, addresses)
        self._reader = NativeClient(cluster_id, addresses)
        combiner = partial(Combiner, batch_max=batch_max, deadline_s=deadline_s)
        self._transfers = combiner(
            self._writer,
            tb.Operation.CREATE_TRANSFERS,
            TRANSFER.itemsize,
            on_packet=self._transfers_done,
        )
        self._accounts = combiner(
            self._reader, tb.Operation.LOOKUP_ACCOUNTS, 16, on_packet=self._accounts_done
        )

    def connect(self, timeout_s: float = CONNECT_TIMEOUT_S, *, named: str = "") -> None:
        """Wait until both sessions have had a reply, so that no measured time includes that.

        ``named`` is the cluster's ``INVENTORY=``. Raises BridgeError with a diagnosis when the
        cluster does not answer in time.
        """
        nobody = (1).to_bytes(16, "little")
        for client in (self._writer, self._reader):
            try:
                reply = client.call(tb.Operation.LOOKUP_ACCOUNTS, nobody, timeout_s)
            except Unanswered:
                why = preflight.diagnose(
                    self.cluster_id, self.addresses, timeout_s, log_lines(), named
                )
                raise BridgeError(why) from None
            _refuse_failed(reply)

    def create_transfers(self, events: bytes) -> list[int]:
        """Create 1 to ``batch_max`` packed transfers; their statuses, in order.

        They are joined with those of other greenlets. Raises Unanswered, BridgeError, and
        ValueError for an open linked chain, which would swallow another greenlet's transfer.
        """
        if events[-10] & 1:  # the low byte of the last event's flags: linked
            raise ValueError("the last transfer must end its chain: clear its linked flag")
        try:
            return self._transfers.call(events)
        finally:
            self.waits = self._transfers.waits

    def lookup_accounts(self, ids: bytes) -> list[bytes | None]:
        """The packed accounts with these packed u128 ids, in order; None for one not found."""
        try:
            return self._accounts.call(ids)
        finally:
            self.waits = self._accounts.waits

    def create_accounts(self, accounts: Array) -> Array:
        """Create accounts in as many batches as needed; one RESULT each."""
        return self._ask_all(self._writer, tb.Operation.CREATE_ACCOUNTS, accounts, RESULT)

    def read_accounts(self, ids: Array) -> Array:
        """All accounts that exist among ids of shape (n, 2), in the order given."""
        return self._ask_all(self._reader, tb.Operation.LOOKUP_ACCOUNTS, ids, ACCOUNT)

    def read_transfers(self, ids: Array) -> Array:
        """All transfers that exist among ids of shape (n, 2), in the order given."""
        return self._ask_all(self._reader, tb.Operation.LOOKUP_TRANSFERS, ids, TRANSFER)

    def statement(self, account_id: tuple[int, int], limit: int) -> Array:
        """The latest transfers of one account, newest first."""
        query = np.zeros(1, ACCOUNT_FILTER)
        query["account_id"] = account_id
        query["limit"] = limit
        flags = tb.AccountFilterFlags
        query["flags"] = flags.DEBITS | flags.CREDITS | flags.REVERSED
        operation = tb.Operation.GET_ACCOUNT_TRANSFERS
        return self._ask(self._reader, operation, query.tobytes(), TRANSFER)

    def transfers_of_run(self, tag: int) -> Iterator[Array]:
        """Every transfer whose user_data_64 is ``tag``, in order of timestamp, page by page."""
        query = np.zeros(1, QUERY_FILTER)
        query["user_data_64"] = tag
        query["limit"] = self.batch_max
        while True:
            operation = tb.Operation.QUERY_TRANSFERS
            page = self._ask(self._reader, operation, query.tobytes(), TRANSFER)
            if len(page):
                yield page
            if len(page) < self.batch_max:
                return
            query["timestamp_min"] = page["timestamp"][-1] + 1

    @property
    def unanswered(self) -> bytes:
        """Transfers sent and without a reply: their outcome is unknown so far."""
        return self._transfers.unanswered

    def drain(self, timeout_s: float) -> bool:
        """Wait for what is queued and in flight; False if the time ran out."""
        until = perf_counter() + timeout_s
        return self._transfers.drain(timeout_s) and self._accounts.drain(
            max(0.0, until - perf_counter())
        )

    def close(self) -> None:
        """End both sessions, within a bound."""
        self._transfers.close()
        self._accounts.close()
        closing = [gevent.spawn(client.close) for client in (self._writer, self._reader)]
        gevent.joinall(closing)

    def _ask(
        self, client: NativeClient, operation: int, data: bytes, layout: np.dtype[Any]
    ) -> Array:
        sent_at = perf_counter()
        try:
            reply = client.call(operation, data, self.deadline_s)
        except Unanswered:
            self.waits = 0.0, perf_counter() - sent_at
            raise
        self.waits = 0.0, reply.at - sent_at
        _refuse_failed(reply)
        return np.frombuffer(reply.body, layout)

    def _ask_all(
        self, client: NativeClient, operation: int, events: Array, layout: np.dtype[Any]
    ) -> Array:
        parts = [
            self._ask(client, operation, events[start : start + self.batch_max].tobytes(), layout)
            for start in range(0, len(events), self.batch_max)
        ]
        return np.concatenate(parts) if parts else np.empty(0, layout)

    def _transfers_done(self, events: bytes, reply: Reply, sent_at: float) -> list[int]:
        seconds = perf_counter() - sent_at
        if reply.status != tb.PacketStatus.OK:
            self._on_transfers(events, None, seconds)
            return []
        results = np.frombuffer(reply.body, RESULT)
        self._on_transfers(events, results, seconds)
        statuses: list[int] = results["status"].tolist()
        return statuses

    def _accounts_done(self, ids: bytes, reply: Reply, sent_at: float) -> list[Any]:
        if reply.status != tb.PacketStatus.OK:
            return []
        accounts = np.frombuffer(reply.body, ACCOUNT)
        self._on_accounts(accounts, perf_counter() - sent_at)
        size, body = ACCOUNT.itemsize, reply.body
        packed = [body[at : at + size] for at in range(0, len(body), size)]
        if len(packed) * 16 == len(ids):
            return packed
        found = {account[:16]: account for account in packed}
        return [found.get(ids[at : at + 16]) for at in range(0, len(ids), 16)]


def _refuse_failed(reply: Reply) -> None:
    if reply.status != tb.PacketStatus.OK:
        raise BridgeError(PACKET_ERRORS[reply.status])
