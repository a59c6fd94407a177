"""Malformed traffic: well-formed messages with something wrong about them, without end.

`python -m tests.emulator.fuzz --messages 200000` is the long form of the test.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.emulator import raw, records, servers
from tests.emulator.raw import RawClient
from tigerbeetle_emulator.protocol.aegis import checksum

_OPERATIONS = [*range(8), *range(127, 150), 200, 255]
_BATCH_OF_PROBES = 50  # mutated messages between two looks at the ledger


class Fuzzer:
    """Sends mutated messages and checks that the server lives and its ledger stays as it was."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._judge = RawClient(port)  # well-behaved, keeps its session throughout
        self._judge.register()
        accounts = [records.pack(records.ACCOUNT, id=n, ledger=1, code=1) for n in range(1, 9)]
        self._judge.batches(records.CREATE_ACCOUNTS, [b"".join(accounts)])
        transfers = [
            records.pack(
                records.TRANSFER,
                id=n,
                debit_account_id=n % 8 + 1,
                credit_account_id=(n + 3) % 8 + 1,
                amount=n,
                ledger=1,
                code=1,
                flags=2 * (n % 2),
            )
            for n in range(1, 50)
        ]
        self._judge.batches(records.CREATE_TRANSFERS, [b"".join(transfers)])
        self._session = RawClient(port)
        self._session.register()
        self._before = self.ledger()
        self.outcomes: Counter[str] = Counter()
        self._kinds = [
            self._flipped,
            self._flipped_well_summed,
            self._field,
            self._body,
            self._noise,
        ]

    def close(self) -> None:
        """Close the connections."""
        self._judge.close()
        self._session.close()

    def ledger(self) -> tuple[bytes, bytes]:
        """Everything in the ledger, by a client that behaves."""
        query = records.pack(records.QUERY_FILTER, limit=8189)
        found = [
            self._judge.batches(operation, [query]).body
            for operation in (records.QUERY_ACCOUNTS, records.QUERY_TRANSFERS)
        ]
        return found[0], found[1]

    def run(self, messages: int) -> None:
        """Send so many mutated messages. Raises AssertionError on the first harm done."""
        sent = 0
        while sent < messages:
            count = min(_BATCH_OF_PROBES, messages - sent)
            self._burst(count)
            sent += count
            assert self.ledger() == self._before, f"the ledger changed within {sent} messages"

    def _burst(self, count: int) -> None:
        """Mutated messages down one connection, or several where it is closed."""
        left = count
        with RawClient(self._port) as client:
            while left:
                left -= 1
                kind = self._random.choice(self._kinds)
                try:
                    client.send(kind())
                    if kind in (self._flipped, self._noise):
                        client.reconnect()  # damage ends a connection: the next needs its own
                        self.outcomes["damage"] += 1
                    self._drain(client)
                except raw.Closed:
                    self.outcomes["closed"] += 1
                    client.reconnect()
            try:
                while client.receive(0.01) is not None:
                    self.outcomes["answered"] += 1
            except raw.Closed:
                self.outcomes["closed"] += 1

    def _drain(self, client: RawClient) -> None:
        """Take what is there without waiting."""
        if self._random.random() < 0.1 and client.receive(0.0005) is not None:
            self.outcomes["answered"] += 1

    # -- mutations -----------------------------------------------------------------------------

    def _valid(self) -> bytearray:
        """A request of an open session with a create that must never be executed: no parent."""
        operation = self._random.choice(list(records.OPERATIONS))
        layout = records.OPERATIONS[operation][1]
        width = records.size(layout)
        body = self._random.randbytes(width * self._random.choice([0, 1, 1, 2, 5]))
        if operation in records.MULTI_BATCH:
            body = raw.multi_batch(operation, [body])
        parent = self._random.getrandbits(128) | 1
        return bytearray(self._session.request_bytes(operation, body, parent=parent))

    def _flipped(self) -> bytes:
        message = self._valid()
        for _ in range(self._random.choice([1, 1, 2, 8])):
            message[self._random.randrange(len(message))] ^= 1 << self._random.randrange(8)
        return bytes(message)

    def _flipped_well_summed(self) -> bytes:
        message = self._valid()
        for _ in range(self._random.choice([1, 1, 2, 8])):
            position = self._random.randrange(16, len(message))
            if not 128 <= position < 144:  # the parent stays wrong
                message[position] ^= 1 << self._random.randrange(8)
        body = bytes(message[256:])
        message[32:48] = checksum(body)
        message[0:16] = checksum(bytes(message[16:256]))
        return bytes(message)

    def _field(self) -> bytes:
        choice = self._random.choice
        fields = {
            choice(list(raw.FIELDS)): choice([0, 1, 2, 255, self._random.getrandbits(8)])
            for _ in range(choice([1, 2, 3]))
        }
        fields = {name: value for name, value in fields.items() if name != "parent"}
        right = {"command": choice([0, 1, 3, 5, 5, 5, 6, 8, 18, 20, 24]), "operation": 200}
        right |= {"client": self._random.getrandbits(127) | 1, "parent": 1}
        if choice([0, 1]):
            right["operation"] = choice([op for op in _OPERATIONS if op != 2])
        body = self._random.randbytes(choice([0, 0, 16, 128, 256, 1000]))
        fields.pop("operation", None)
        return raw.message(body, **(right | {"session": 1, "request": 1} | fields))

    def _body(self) -> bytes:
        """A body that does not fit its operation."""
        operation = self._random.choice(_OPERATIONS)
        size = self._random.choice([0, 1, 2, 15, 16, 64, 127, 128, 129, 256, 4096, 70_000])
        body = bytearray(self._random.randbytes(size))
        if size >= 4 and self._random.random() < 0.5:
            body[-2:] = self._random.choice([b"\0\0", b"\1\0", b"\xff\xff", b"\xff\0"])
        return self._session.request_bytes(operation, bytes(body), parent=1)

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.choice([1, 100, 256, 257, 3000]))


def main() -> int:
    """Fuzz an emulator process for so many messages; 0 if no harm was done."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as name,
        servers.emulator(Path(name)) as server,
    ):
        fuzzer = Fuzzer(server.ports[0], arguments.seed)
        done = 0
        while done < arguments.messages:
            step = min(10_000, arguments.messages - done)
            fuzzer.run(step)
            done += step
            print(f"{done:,} mutated messages, {dict(fuzzer.outcomes)}", flush=True)
        fuzzer.close()
        assert server.process is not None
        assert server.process.poll() is None, server.log
        assert "Traceback" not in server.log, server.log
    print(f"alive, ledger unchanged, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
