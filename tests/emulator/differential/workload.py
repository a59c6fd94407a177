"""Random workloads: sequences of steps that make sense on any server, from a seed.

A step names accounts, transfers and moments symbolically, so that it can be sent to two servers
whose clocks differ, placed into a namespace of its own, and left out when a failing sequence is
shortened. Generating looks at no reply: it draws from what was used before, right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.emulator import records
from tests.emulator.differential.events import HOLD_SECONDS, Events
from tests.emulator.differential.steps import Event, Moment, Step
from tests.emulator.records import U128_MAX

EXPIRY_WAIT_SECONDS = 1.6
_EVENTS_MAX, _EVENTS_LARGE = 8, 300


class Workload(Events):
    """Generates the steps of one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
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

    def _step(self, operation: int, packets: list[list[Event]], pause: float = 0.0) -> Step:
        self._uid += 1
        return Step(self._uid, operation, tuple(map(tuple, packets)), pause)

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
        late: list[Event] = [
            {"id": self._fresh(), "pending_id": hold["id"], "flags": self.random.choice([4, 8])}
            for hold in holds
        ]
        third = self._step(records.CREATE_TRANSFERS, [late])
        events: Event = {"limit": 1000, "timestamp_min": Moment((first.uid, 0), 0)}
        fourth = self._step(records.GET_CHANGE_EVENTS, [[events]])
        for step in (first, second, third):
            self._remember(step)
        return [first, second, third, fourth]
