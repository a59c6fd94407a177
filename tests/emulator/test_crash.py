"""SIGKILL under load, again and again: clients go on, and what was acknowledged is there."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from tests.emulator import records, servers
from tests.emulator.native import NativeClient

_KILLS = 10
_ACCOUNTS = 8
_CLIENTS = 3


class _Load(threading.Thread):
    """One client that pays without pause; remembers what was acknowledged, and what is open."""

    def __init__(self, addresses: str, number: int) -> None:
        super().__init__()
        self._addresses, self._number = addresses, number
        self._random = random.Random(number)
        self.stopping = threading.Event()
        self.acknowledged: dict[int, tuple[int, int, int]] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with NativeClient(0, self._addresses) as client:
                sequence = self._number << 32
                while not self.stopping.is_set():
                    events = []
                    for _ in range(self._random.choice([1, 1, 20])):
                        sequence += 1
                        debit, credit = self._random.sample(range(1, _ACCOUNTS + 1), 2)
                        events.append((sequence, debit, credit, self._random.randint(1, 99)))
                    body = b"".join(
                        records.pack(
                            records.TRANSFER,
                            id=number,
                            debit_account_id=debit,
                            credit_account_id=credit,
                            amount=amount,
                            ledger=1,
                            code=1,
                        )
                        for number, debit, credit, amount in events
                    )
                    # The client retransmits over every kill, so no outcome stays unknown.
                    reply = client.request(records.CREATE_TRANSFERS, body, 60.0)
                    for event, result in zip(
                        events, records.unpack(records.CREATE_RESULT, reply.data), strict=True
                    ):
                        assert result["status"] == records.CREATED, result
                        self.acknowledged[event[0]] = event[1:]
        except BaseException as error:
            self.error = error


def test_ten_kills_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    server = servers.ServerProcess(servers.EMULATOR, tmp_path).start()
    loads: list[_Load] = []
    try:
        with NativeClient(0, server.addresses) as client:
            accounts = [
                records.pack(records.ACCOUNT, id=n, ledger=1, code=1)
                for n in range(1, _ACCOUNTS + 1)
            ]
            client.request(records.CREATE_ACCOUNTS, b"".join(accounts))
            loads = [_Load(server.addresses, number) for number in range(1, _CLIENTS + 1)]
            for load in loads:
                load.start()
            for _ in range(_KILLS):
                before = sum(len(load.acknowledged) for load in loads)
                deadline = time.monotonic() + 300
                while sum(len(load.acknowledged) for load in loads) < before + 50:
                    assert time.monotonic() < deadline, [load.error for load in loads]
                    time.sleep(0.02)
                server.kill()
                server.start()
            for load in loads:
                load.stopping.set()
            for load in loads:
                load.join(60)
            assert [load.error for load in loads] == [None] * _CLIENTS
            _check(client, loads)
    finally:
        for load in loads:
            load.stopping.set()
        server.stop()


def _check(client: NativeClient, loads: list[_Load]) -> None:
    """The ledger holds exactly what was acknowledged, and its balances say the same."""
    acknowledged = {number: event for load in loads for number, event in load.acknowledged.items()}
    found: dict[int, tuple[int, int, int]] = {}
    newest = 0
    while True:
        page = records.unpack(
            records.TRANSFER,
            client.request(
                records.QUERY_TRANSFERS,
                records.pack(records.QUERY_FILTER, limit=8189, timestamp_min=newest + 1),
            ).data,
        )
        for each in page:
            found[each["id"]] = (
                each["debit_account_id"],
                each["credit_account_id"],
                each["amount"],
            )
            newest = each["timestamp"]
        if len(page) < 8189:
            break
    assert found == acknowledged
    ids = b"".join(records.pack(records.ID, id=n) for n in range(1, _ACCOUNTS + 1))
    for account in records.unpack(
        records.ACCOUNT, client.request(records.LOOKUP_ACCOUNTS, ids).data
    ):
        debits = sum(amount for debit, _, amount in found.values() if debit == account["id"])
        credits = sum(amount for _, credit, amount in found.values() if credit == account["id"])
        assert (account["debits_posted"], account["credits_posted"]) == (debits, credits)
