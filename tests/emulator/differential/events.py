"""Random accounts and transfers, most of them reasonable, many with one thing wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.emulator import records
from tests.emulator.differential.steps import Event, Moment, Value
from tests.emulator.records import U128_MAX

HOLD_SECONDS = 1  # the timeout of transfers meant to expire
_NEVER = 100_000  # seconds: a timeout that no run reaches


@dataclass
class Used:
    """Ids drawn so far: what later steps refer to."""

    accounts: list[int] = field(default_factory=list)
    transfers: list[Event] = field(default_factory=list)
    holds: list[int] = field(default_factory=list)
    timed: set[int] = field(default_factory=set)  # holds with a timeout
    created: list[tuple[int, int]] = field(default_factory=list)  # (uid, index)
    opened: list[tuple[int, int]] = field(default_factory=list)  # the same of accounts only


class Events:
    """Draws events, referring to what was drawn before."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.used = Used()
        self._next_id = 0

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _fresh(self) -> int:
        self._next_id += 1
        return self._next_id

    def _account(self) -> int:
        if not self.used.accounts or self._chance(0.01):
            return self.random.choice([0, U128_MAX, self._next_id + 1000])
        recent = self.used.accounts[-12:] if self._chance(0.7) else self.used.accounts
        return self.random.choice(recent)

    def _amount(self) -> int:
        draw = self.random.random()
        if draw < 0.85:
            return self.random.randrange(1, 200)
        if draw < 0.9:
            return 0
        if draw < 0.95:
            return self.random.choice([U128_MAX, U128_MAX - 1, 1 << 127, (1 << 127) - 1])
        return self.random.choice([1 << 64, (1 << 64) - 1, 10**12])

    def _user_data(self) -> Event:
        data: Event = {}
        for name, limit in (("user_data_128", 3), ("user_data_64", 3), ("user_data_32", 3)):
            if self._chance(0.3):
                data[name] = self.random.randrange(limit)
        return data

    def _account_event(self, ordinary: bool) -> Event:
        if self.used.accounts and not ordinary and self._chance(0.3):
            number = self._account()
        else:
            number = self._fresh()
        self.used.accounts.append(number)
        event: Event = {"id": number, "ledger": 1, "code": 1, **self._user_data()}
        if self._chance(0.1):
            event["ledger"] = 2
        event["flags"] = self.random.choice([0, 0, 0, 2, 4, 8, 8, 10])
        if not ordinary:
            self._spoil_account(event)
        return event

    def _spoil_account(self, event: Event) -> None:
        flags = int(event["flags"])  # type: ignore[arg-type]
        if self._chance(0.2):
            event["flags"] = flags | 1
        if self._chance(0.03):
            event["flags"] = flags | 32
        if self._chance(0.25):
            event |= self.random.choice(
                [
                    {"reserved": 1},
                    {"flags": 1 << self.random.randrange(6, 16)},
                    {"flags": 6},
                    {"id": 0},
                    {"id": U128_MAX},
                    {"debits_pending": 1},
                    {"debits_posted": 1 << 64},
                    {"credits_pending": 1},
                    {"credits_posted": 1 << 127},
                    {"ledger": 0},
                    {"ledger": 3},
                    {"code": 0},
                    {"code": 7},
                    {"timestamp": 1},
                    {"flags": 16},
                    {"user_data_32": 9},
                ]
            )

    def _transfer_event(self) -> Event:
        draw = self.random.random()
        if draw < 0.10 and self.used.transfers:
            return self._again()
        if draw < 0.35 and self.used.holds:
            return self._resolution()
        event: Event = {
            "id": self._fresh(),
            "debit_account_id": self._account(),
            "credit_account_id": self._account(),
            "amount": self._amount(),
            "ledger": 1,
            "code": self.random.choice([1, 1, 2]),
            "flags": 0,
            **self._user_data(),
        }
        flags = self.random.choices([0, 2, 16, 32, 48, 18], [60, 22, 6, 6, 2, 2])[0]
        if flags & 2 and self._chance(0.15):
            flags |= self.random.choice([64, 128, 192])
        if flags & 2 and self._chance(0.3):
            event["timeout"] = _NEVER
        event["flags"] = flags
        return event

    def _resolution(self) -> Event:
        held = self.random.choice(self.used.holds[-8:] if self._chance(0.8) else self.used.holds)
        flags = self.random.choice([4, 8])
        event: Event = {"id": self._fresh(), "pending_id": held, "flags": flags}
        if flags == 4:
            event["amount"] = U128_MAX if self._chance(0.6) else self._amount()
        elif self._chance(0.2):
            event["amount"] = self._amount()
        if self._chance(0.2):
            event |= self.random.choice(
                [
                    {"debit_account_id": self._account()},
                    {"credit_account_id": self._account()},
                    {"ledger": self.random.randrange(1, 3)},
                    {"code": self.random.randrange(1, 3)},
                    {"timeout": _NEVER},
                    {"flags": flags | self.random.choice([2, 4, 8, 16, 32, 64, 128])},
                ]
            )
        return event | self._user_data()

    def _again(self) -> Event:
        event = dict(self.random.choice(self.used.transfers[-40:]))
        if self._chance(0.8):
            name = self.random.choice(
                [name for name in event if name not in ("id", "timestamp")] + ["timeout"]
            )
            changed = int(event.get(name, 0)) + self.random.choice([1, -1])  # type: ignore[arg-type]
            sizes = dict(records.TRANSFER)
            # A short timeout must not slip in here: it would expire amid traffic.
            event[name] = _NEVER * 2 if name == "timeout" else changed % (1 << 8 * sizes[name])
        return event

    def _spoil_transfer(self, event: Event) -> None:
        event |= self.random.choice(
            [
                {"flags": 1 << self.random.randrange(9, 16)},
                {"id": 0},
                {"id": U128_MAX},
                {"debit_account_id": 0},
                {"debit_account_id": U128_MAX},
                {"credit_account_id": 0},
                {"credit_account_id": U128_MAX},
                {"debit_account_id": self._next_id + 5000},
                {"credit_account_id": self._next_id + 5000},
                {"pending_id": self._next_id},
                {"pending_id": 0},
                {"pending_id": U128_MAX},
                {"pending_id": event["id"]},
                {"timeout": 5_000_000},
                {"ledger": 0},
                {"ledger": 2},
                {"code": 0},
                {"flags": 64},
                {"flags": 256},
                {"timestamp": 1},
            ]
        )

    def _use(self, event: Event) -> None:
        """Remember a transfer for duplicates, posts and voids.

        The genuine server does not survive importing the resolution of a hold with a timeout, so
        such an event stops being an import here.
        """
        flags = int(event.get("flags", 0))  # type: ignore[arg-type]
        if flags & 12 and event.get("pending_id") in self.used.timed:
            event["flags"] = flags & ~256
        if event.get("timeout") != HOLD_SECONDS:
            self.used.transfers.append(dict(event))
        number = int(event["id"])  # type: ignore[arg-type]
        if flags & 2 or self._chance(0.02):
            self.used.holds.append(number)
        if event.get("timeout"):
            self.used.timed.add(number)

    def _past(self, delta: int) -> Value:
        draw = self.random.random()
        if draw < 0.70:
            return Moment(None, delta)
        if draw < 0.93 and self.used.created:
            near = self.used.opened[-3:] if draw < 0.80 else self.used.created[-30:]
            return Moment(self.random.choice(near), self.random.choice([-1, 0, 1]))
        return self.random.choice([0, 1, 1 << 62, 1 << 63, (1 << 64) - 1])
