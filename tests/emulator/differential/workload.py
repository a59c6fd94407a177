"""Random workloads: sequences of steps that make sense on any server, from a seed.

A step names accounts, transfers and moments symbolically, so that it can be sent to two servers
whose clocks differ, placed into a namespace of its own, and left out when a failing sequence is
shortened. Generating looks at no reply: it draws from what was used before, right or wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.emulator import records
from tests.emulator.records import U128_MAX

HOLD_SECONDS = 1  # the timeout of transfers meant to expire
EXPIRY_WAIT_SECONDS = 1.6
_NEVER = 100_000  # seconds: a timeout that no run reaches
_EVENTS_MAX, _EVENTS_LARGE = 8, 300


class Moment(NamedTuple):
    """A timestamp that each server knows for itself.

    `event` is (uid of a step, index of an event) or None for the newest object so far.
    """

    event: tuple[int, int] | None
    delta: int


Value = int | Moment
Event = dict[str, Value]


@dataclass(frozen=True)
class Step:
    """One or more packets of one operation, submitted at once, and a pause afterwards."""

    uid: int
    operation: int
    packets: tuple[tuple[Event, ...], ...]
    pause: float = 0.0

    def only(self, packets: tuple[tuple[Event, ...], ...]) -> Step:
        """The same step with other packets."""
        return replace(self, packets=packets)


@dataclass
class _Used:
    """Ids drawn so far: what later steps refer to."""

    accounts: list[int] = field(default_factory=list)
    transfers: list[Event] = field(default_factory=list)
    holds: list[int] = field(default_factory=list)
    timed: set[int] = field(default_factory=set)  # holds with a timeout
    created: list[tuple[int, int]] = field(default_factory=list)  # (uid, index)
    opened: list[tuple[int, int]] = field(default_factory=list)  # the same of accounts only


class Workload:
    """Generates the steps of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.used = _Used()
        self._next_id = 0
        self._uid = 0

    def steps(self, count: int) -> list[Step]:
        """The first `count` steps: some accounts, then everything mixed."""
        steps = [self._accounts_step(ordinary=True) for _ in range(3)]
        kinds: list[tuple[int, Callable[[], Step]]] = [
            (62, self._transfers_step),
            (6, self._accounts_step),
            (4, self._imported_transfers_step),
            (2, self._imported_accounts_step),
            (6, self._lookup_step),
            (20, self._query_step),
        ]
        weights = [weight for weight, _ in kinds]
        while len(steps) < count:
            if self.random.random() < 0.004:
                steps.extend(self._expiry_steps())
            else:
                (draw,) = self.random.choices([draw for _, draw in kinds], weights)
                steps.append(draw())
        return steps

    # -- drawing values ------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _fresh(self) -> int:
        self._next_id += 1
        return self._next_id

    def _step(self, operation: int, packets: list[list[Event]], pause: float = 0.0) -> Step:
        self._uid += 1
        return Step(self._uid, operation, tuple(map(tuple, packets)), pause)

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

    def _shuffled_ids(self, events: list[Event]) -> list[list[Event]]:
        """As one packet, or as several to be combined by the client library."""
        if self._chance(0.85) or len(events) < 2:
            return [events]
        cut = self.random.randrange(1, len(events))
        return [events[:cut], events[cut:]]

    # -- accounts ------------------------------------------------------------------------------

    def _accounts_step(self, ordinary: bool = False) -> Step:
        events = [self._account_event(ordinary) for _ in range(self.random.randint(1, 6))]
        step = self._step(records.CREATE_ACCOUNTS, self._shuffled_ids(events))
        self._remember(step)
        return step

    def _account_event(self, ordinary: bool) -> Event:
        if self.used.accounts and not ordinary and self._chance(0.3):
            number = self._account()
        else:
            number = self._fresh()
        self.used.accounts.append(number)
        event: Event = {"id": number, "ledger": 1, "code": 1} | self._user_data()
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

    # -- transfers -----------------------------------------------------------------------------

    def _transfers_step(self) -> Step:
        events: list[Event] = []
        most = _EVENTS_LARGE if self._chance(0.03) else _EVENTS_MAX
        for _ in range(self.random.randint(1, most)):
            event = self._transfer_event()
            if self._chance(0.25):
                self._spoil_transfer(event)
            if self._chance(0.25):
                event["flags"] = int(event.get("flags", 0)) | 1  # type: ignore[arg-type]
            self._use(event)
            events.append(event)
        if self._chance(0.7):
            flags = int(events[-1].get("flags", 0))  # type: ignore[arg-type]
            events[-1] = events[-1] | {"flags": flags & ~1}
        step = self._step(records.CREATE_TRANSFERS, self._shuffled_ids(events))
        self._remember(step)
        return step

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
        } | self._user_data()
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
        """Remember a transfer for duplicates, posts and voids."""
        if event.get("timeout") != HOLD_SECONDS:
            self.used.transfers.append(dict(event))
        number, flags = int(event["id"]), int(event.get("flags", 0))  # type: ignore[arg-type]
        if flags & 2 or self._chance(0.02):
            self.used.holds.append(number)
        if event.get("timeout"):
            self.used.timed.add(number)

    def _remember(self, step: Step) -> None:
        count = sum(map(len, step.packets))
        labels = [(step.uid, index) for index in range(count)]
        self.used.created.extend(labels)
        if step.operation == records.CREATE_ACCOUNTS:
            self.used.opened.extend(labels)

    # -- imports -------------------------------------------------------------------------------

    def _imported_transfers_step(self) -> Step:
        """Transfers of the past: just after the newest object, or at and around older ones."""
        events: list[Event] = []
        delta = self.random.choice([0, 1, 1, 1])
        for _ in range(self.random.randint(1, 4)):
            event = self._transfer_event()
            flags = int(event.get("flags", 0))  # type: ignore[arg-type]
            if flags & 12 and event.get("pending_id") in self.used.timed:
                continue  # the genuine server does not survive importing one of those
            if event.get("timeout") and self._chance(0.7):
                del event["timeout"]
            event["flags"] = flags | 256
            if self._chance(0.15):
                event["flags"] = int(event["flags"]) | 1  # type: ignore[arg-type]
            event["timestamp"] = self._past(delta)
            delta += self.random.choice([0, 1, 1, 2, 3])
            if self._chance(0.04):
                event["flags"] = flags & ~256
            self._use(event)
            events.append(event)
        step = self._step(records.CREATE_TRANSFERS, [events])
        self._remember(step)
        return step

    def _past(self, delta: int) -> Value:
        draw = self.random.random()
        if draw < 0.70:
            return Moment(None, delta)
        if draw < 0.93 and self.used.created:
            near = self.used.opened[-3:] if draw < 0.80 else self.used.created[-30:]
            return Moment(self.random.choice(near), self.random.choice([-1, 0, 1]))
        return self.random.choice([0, 1, 1 << 62, 1 << 63, (1 << 64) - 1])

    def _imported_accounts_step(self) -> Step:
        events: list[Event] = []
        delta = self.random.choice([0, 1, 1])
        for _ in range(self.random.randint(1, 4)):
            event = self._account_event(ordinary=self._chance(0.8))
            event["flags"] = int(event["flags"]) | 16  # type: ignore[arg-type]
            event["timestamp"] = self._past(delta)
            delta += self.random.choice([0, 1, 2])
            events.append(event)
        step = self._step(records.CREATE_ACCOUNTS, [events])
        self._remember(step)
        return step

    # -- reading -------------------------------------------------------------------------------

    def _lookup_step(self) -> Step:
        if self._chance(0.6):
            numbers = self.random.choices([*self.used.accounts, 0, U128_MAX], k=20)
            return self._step(records.LOOKUP_ACCOUNTS, [[{"id": each} for each in numbers]])
        found = [event["id"] for event in self.used.transfers[-60:]]
        return self._step(records.LOOKUP_TRANSFERS, [[{"id": each} for each in [*found, 0]]])

    def _query_step(self) -> Step:
        operation = self.random.choice(range(142, 146)) if self._chance(0.9) else 137
        event: Event = {"limit": self.random.choice([1, 2, 7, 100, 100, 2000])}
        event["timestamp_min"] = Moment((0, 0), 0)  # the beginning of this run
        if self.used.created and self._chance(0.4):
            moment = Moment(self.random.choice(self.used.created), self.random.choice([-1, 0, 1]))
            event[self.random.choice(["timestamp_min", "timestamp_max"])] = moment
        if operation != records.GET_CHANGE_EVENTS:
            event |= self._user_data()
            if self._chance(0.2):
                event["code"] = self.random.randrange(3)
        if operation in (records.QUERY_ACCOUNTS, records.QUERY_TRANSFERS):
            event["flags"] = self.random.randrange(2)
            if self._chance(0.3):
                event["ledger"] = self.random.randrange(3)
        elif operation != records.GET_CHANGE_EVENTS:
            event["account_id"] = self._account()
            event["flags"] = self.random.choice([1, 2, 3, 3, 5, 6, 7])
        if self._chance(0.1):
            event |= self.random.choice(
                [{"limit": 0}, {"reserved": 1}, {"timestamp_min": 1 << 63}, {"timestamp_max": 1}]
                + ([{"flags": 8}] if operation != records.GET_CHANGE_EVENTS else [])
            )
        return self._step(operation, [[event]])

    # -- expiry --------------------------------------------------------------------------------

    def _expiry_steps(self) -> list[Step]:
        """Holds that time out, some resolved before, then a pause that leaves no doubt."""
        holds: list[Event] = []
        for _ in range(self.random.randint(3, 8)):
            event = self._transfer_event()
            while int(event.get("flags", 0)) & 12:  # type: ignore[arg-type]
                event = self._transfer_event()
            event |= {"flags": 2 | self.random.choice([0, 0, 64, 128]), "timeout": HOLD_SECONDS}
            holds.append(event)
            self._use(event)
        first = self._step(records.CREATE_TRANSFERS, [holds])
        resolved: list[Event] = []
        for hold in self.random.sample(holds, 2):
            event = {
                "id": self._fresh(),
                "pending_id": hold["id"],
                "flags": self.random.choice([4, 8]),
            }
            if event["flags"] == 4:
                event["amount"] = U128_MAX
            resolved.append(event)
            self._use(event)
        second = self._step(records.CREATE_TRANSFERS, [resolved], EXPIRY_WAIT_SECONDS)
        late = [
            {"id": self._fresh(), "pending_id": hold["id"], "flags": self.random.choice([4, 8])}
            for hold in holds
        ]
        third = self._step(records.CREATE_TRANSFERS, [late])  # type: ignore[list-item]
        events: Event = {"limit": 1000, "timestamp_min": Moment((first.uid, 0), 0)}
        fourth = self._step(records.GET_CHANGE_EVENTS, [[events]])
        for step in (first, second, third):
            self._remember(step)
        return [first, second, third, fourth]
