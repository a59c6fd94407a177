"""A small wallet's bookkeeping over one raw connection: two accounts, transfers, holds."""

from __future__ import annotations

from tests.emulator import raw, records
from tests.emulator.raw import RawClient
from tests.emulator.records import Record
from tigerbeetle_emulator import Emulator

PENDING, POST = 2, 4
EXPIRED_EVENT = 4  # in `type` of a change event


def port_of(cluster: Emulator) -> int:
    """Of its first address."""
    return int(cluster.address.split(",")[0].rpartition(":")[2])


class Book:
    """Accounts 1 and 2 of ledger 1, by a session of its own."""

    def __init__(self, cluster: Emulator) -> None:
        self._client = RawClient(port_of(cluster), cluster=cluster.cluster_id)
        self._client.register()

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def reconnect(self) -> None:
        """Come back with the same session."""
        self._client.reconnect()

    def _ask(self, operation: int, *events: bytes) -> list[Record]:
        layout = records.OPERATIONS[operation][2]
        answer = self._client.batches(operation, [b"".join(events)])
        (batch,) = raw.split_batches(answer.body, records.size(layout))
        return records.unpack(layout, batch)

    def open(self) -> list[int]:
        """Create both accounts; returns the statuses."""
        pack = [records.pack(records.ACCOUNT, id=n, ledger=1, code=1) for n in (1, 2)]
        return [result["status"] for result in self._ask(records.CREATE_ACCOUNTS, *pack)]

    def pay(self, number: int, amount: int = 1, **fields: int) -> Record:
        """Move an amount from account 1 to 2; returns status and timestamp."""
        accounts = {"debit_account_id": 1, "credit_account_id": 2}
        values = {"id": number, **accounts, "amount": amount, "ledger": 1, "code": 1, **fields}
        (result,) = self._ask(records.CREATE_TRANSFERS, records.pack(records.TRANSFER, **values))
        return result

    def hold(self, number: int, seconds: int = 0, amount: int = 1) -> Record:
        """Reserve an amount, for so long."""
        return self.pay(number, amount, flags=PENDING, timeout=seconds)

    def accounts(self) -> list[Record]:
        """Those of the two that exist."""
        ids = (records.pack(records.ID, id=number) for number in (1, 2))
        return self._ask(records.LOOKUP_ACCOUNTS, *ids)

    def pending(self) -> int:
        """What account 1 has reserved."""
        return self.accounts()[0]["debits_pending"]

    def events(self) -> list[Record]:
        """All that has happened to the transfers, in order."""
        body = records.pack(records.CHANGE_EVENTS_FILTER, limit=100)
        answer = self._client.request(records.GET_CHANGE_EVENTS, body)
        return records.unpack(records.CHANGE_EVENT, answer.body)
