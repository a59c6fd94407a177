"""A small honest history with everything in it, made by hand; and ways to break it.

The world here is a list of transfers and a dict of balances, added up in plain Python: not by the
code under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtests.client.records import (
    ACCOUNT,
    CREATED,
    EXISTS,
    LINKED,
    MUST_NOT_OVERDRAW,
    PENDING,
    POST,
    RECORD,
    TRANSFER,
    UNANSWERED,
    VOID,
    Array,
    pack_transfer,
    split,
)
from loadtests.proof.proof import Proof
from loadtests.proof.record import Part, Record
from loadtests.run.result import Check

TAG = 0xABCDEF
FUNDING, ANN, BOB, FEES = 1, 2, 3, 4
EXCEEDS_CREDITS, LINKED_FAILED = 54, 1


@dataclass
class World:
    """What a run recorded, and what the ledger holds. Both may be tampered with."""

    lines: list[tuple[bytes, int, int]] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    balances: dict[int, list[int]] = field(
        default_factory=lambda: {i: [0, 0, 0, 0] for i in (FUNDING, ANN, BOB, FEES)}
    )
    clock: int = 1_000_000

    def send(
        self,
        low: int,
        debit: int,
        credit: int,
        amount: int,
        *,
        answer: int = CREATED,
        lands: bool = True,
        **more: Any,
    ) -> None:
        """One transfer: recorded with its answer, and stored if it lands."""
        sent = pack_transfer(
            low,
            TAG,
            (debit, TAG),
            (credit, TAG),
            amount,
            ledger=978,
            code=12,
            user_data_64=TAG,
            **more,
        )
        self.clock += 10
        acknowledged = answer in (CREATED, EXISTS)
        self.lines.append((sent, answer, self.clock if answer != UNANSWERED else 0))
        assert not acknowledged or lands
        if lands:
            self.store(sent, self.clock)
            if not more.get("flags", 0) & (PENDING | VOID):
                self.balances[debit][0] += amount
                self.balances[credit][1] += amount

    def store(self, sent: bytes, timestamp: int) -> None:
        self.stored.append(sent[:120] + timestamp.to_bytes(8, "little"))

    def record(self) -> Array:
        lines = np.zeros(len(self.lines), RECORD)
        for row, (sent, status, timestamp) in enumerate(self.lines):
            lines["sent"][row] = np.frombuffer(sent, TRANSFER)[0]
            lines["result"]["status"][row] = status
            lines["result"]["timestamp"][row] = timestamp
        return lines

    def accounts(self) -> Array:
        found = np.zeros(len(self.balances), ACCOUNT)
        for row, (low, values) in enumerate(self.balances.items()):
            found["id"][row] = (low, TAG)
            found["ledger"][row] = 978
            found["flags"][row] = 0 if low == FUNDING else MUST_NOT_OVERDRAW
            names = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")
            for name, value in zip(names, values, strict=True):
                found[name][row] = split(value)
        return found

    def checks(self, page_size: int = 4) -> dict[str, Check]:
        proof = Proof(Record([Part(self.record())], TAG))
        pages = sorted(self.stored, key=lambda row: row[120:][::-1])
        for start in range(0, len(pages), page_size):
            page = b"".join(pages[start : start + page_size])
            proof.add_page(np.frombuffer(page, TRANSFER))
        return {check.name: check for check in proof.finish(self.accounts(), self.asked())}

    def asked(self) -> Array:
        """The accounts as the run began with them: empty."""
        asked = self.accounts().copy()
        asked["debits_posted"] = asked["credits_posted"] = 0
        return asked

    @property
    def failed(self) -> dict[str, str]:
        """The failing checks and what they say."""
        return {n: c.detail for n, c in self.checks().items() if c.verdict == "failed"}


def honest() -> World:
    """Funding, payments, a chain, holds that end in each way, refusals, unknowns, a retry."""
    world = World()
    world.send(1, FUNDING, ANN, 10_000)
    world.send(2, FUNDING, BOB, 1 << 100)
    world.send(3, ANN, BOB, 250)
    world.send(4, ANN, BOB, 1 << 90, answer=EXCEEDS_CREDITS, lands=False)
    world.send(10, ANN, BOB, 100, flags=LINKED, chain=(10, TAG))
    world.send(11, ANN, FEES, 1, chain=(10, TAG))
    world.send(12, BOB, ANN, 1, flags=LINKED, chain=(12, TAG), answer=LINKED_FAILED, lands=False)
    world.send(13, ANN, FEES, 1 << 90, chain=(12, TAG), answer=EXCEEDS_CREDITS, lands=False)
    world.send(20, ANN, BOB, 500, flags=PENDING, timeout_s=10)
    world.send(21, ANN, BOB, 300, flags=POST, pending=(20, TAG))
    world.send(22, ANN, BOB, 70, flags=PENDING, timeout_s=10)
    world.send(23, ANN, BOB, 70, flags=VOID, pending=(22, TAG))
    world.send(24, ANN, BOB, 60, flags=PENDING, timeout_s=1)
    world.send(30, ANN, BOB, 5, answer=UNANSWERED, lands=True)
    world.send(31, ANN, BOB, 6, answer=UNANSWERED, lands=False)
    world.send(32, BOB, ANN, 7)
    sent, _, timestamp = world.lines[-1]
    world.lines.append((sent, EXISTS, timestamp))  # the retry of 32 found it committed
    return world
