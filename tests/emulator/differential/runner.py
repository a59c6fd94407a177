"""Running one workload on two servers and comparing everything they say.

Statuses, records, balances and histories must be equal. Timestamps depend on each server's clock;
compared are their relations: to the request they came from, and to the object that was given them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.emulator import records
from tests.emulator.differential.steps import Event, Moment, Step
from tests.emulator.native import NativeClient, Reply
from tests.emulator.records import Record

_ID_FIELDS = ("id", "debit_account_id", "credit_account_id", "pending_id", "account_id")
_TIMES = ("timestamp", "transfer_timestamp", "debit_account_timestamp", "credit_account_timestamp")
_IMPORTED = {records.CREATE_ACCOUNTS: 16, records.CREATE_TRANSFERS: 256}
_EXISTS = {records.CREATE_ACCOUNTS: 21, records.CREATE_TRANSFERS: 46}
_START = (0, 0)


@dataclass(frozen=True)
class Divergence:
    """The first thing two servers disagree about."""

    step: Step
    packet: int
    index: int
    event: Event | None
    found: Any
    expected: Any

    def __str__(self) -> str:
        name = records.OPERATIONS[self.step.operation][0]
        return (
            f"step {self.step.uid} ({name}), packet {self.packet}, result {self.index}\n"
            f"  event    {self.event}\n  emulator {self.found}\n  genuine  {self.expected}"
        )


@dataclass
class Statistics:
    """What was compared."""

    requests: int = 0
    events: int = 0
    records: int = 0
    statuses: dict[int, Counter[int]] = field(
        default_factory=lambda: {operation: Counter() for operation in _IMPORTED}
    )


class Side:
    """One of the two servers, and which moment is what on its clock."""

    def __init__(self, client: NativeClient, namespace: int) -> None:
        self._client = client
        self._namespace = namespace << 64
        self._times: dict[tuple[int, int], int] = {}
        self._labels: dict[int, tuple[Any, ...]] = {}
        self._given: list[list[Record]] = []
        # An empty request tells the time: everything of this run is younger.
        self._newest = client.request(records.CREATE_ACCOUNTS, b"").timestamp
        self._times[_START] = self._newest + 1

    def submit(self, step: Step) -> list[Any]:
        """Send a step's packets."""
        layout = records.OPERATIONS[step.operation][1]
        self._given = [[self._render(event) for event in packet] for packet in step.packets]
        bodies = [b"".join(records.pack(layout, **e) for e in packet) for packet in self._given]
        return [self._client.submit(step.operation, body) for body in bodies]

    def _render(self, event: Event) -> Record:
        rendered = {}
        for name, value in event.items():
            number = self._time(value) if isinstance(value, Moment) else value
            if name in _ID_FIELDS and 0 < number < 1 << 64:
                number |= self._namespace
            rendered[name] = number
        return rendered

    def _time(self, moment: Moment) -> int:
        if moment.event is None:
            return self._newest + moment.delta
        return self._times.get(moment.event, self._times[_START]) + moment.delta

    def normalise(self, step: Step, replies: list[Reply]) -> list[list[Any]]:
        """What was said, packet by packet, without what only this server's clock knows."""
        if step.operation not in _IMPORTED:
            return [[self._record(r) for r in self._results(step, reply)] for reply in replies]
        said, index = [], 0
        for events, reply in zip(self._given, replies, strict=True):
            results = self._results(step, reply)
            normal: list[Any] = []
            if len(results) != len(events):
                normal.append(("results", len(results)))
            for event, result in zip(events, results, strict=False):
                alone = len(replies) == 1
                normal.append(self._create_result(step, index, event, result, reply, alone))
                index += 1
            said.append(normal)
        return said

    def _results(self, step: Step, reply: Reply) -> list[Record]:
        if reply.status:
            return [{"packet_status": reply.status}]
        return records.unpack(records.OPERATIONS[step.operation][2], reply.data)

    def _create_result(
        self, step: Step, index: int, event: Record, result: Record, reply: Reply, alone: bool
    ) -> Any:
        if "packet_status" in result:
            return result
        status, timestamp = result["status"], result["timestamp"]
        label = (step.uid, index)
        relative = ("relative", timestamp - reply.timestamp if alone else None)
        if status == _EXISTS[step.operation]:
            # Without a label it exists in a chain that is undone later in this very batch.
            return status, self._labels.get(timestamp, relative)
        self._times[label] = timestamp
        if status == records.CREATED:
            self._labels[timestamp] = label
            self._newest = max(self._newest, timestamp)
        if event.get("timestamp") == timestamp:  # imported, perhaps undone with its chain
            return status, "as given"
        # Packets combined by the client share a request; how it combines them is its own affair.
        return status, relative

    def _record(self, record: Record) -> Record:
        normal: dict[str, Any] = dict(record)
        for name, value in record.items():
            if name.endswith("id") and value & ~((1 << 64) - 1) == self._namespace:
                normal[name] = value & ((1 << 64) - 1)
        for name in _TIMES:
            if name in record:
                normal[name] = self._labels.get(record[name], record[name])
        if record.get("type") == 4:
            normal["timestamp"] = ("expiry of", normal["transfer_id"])
        return normal


def run(
    steps: list[Step],
    clients: tuple[NativeClient, NativeClient],
    namespace: int,
    statistics: Statistics,
) -> Divergence | None:
    """Run a workload on the emulator and the genuine server; the first divergence, or None."""
    sides = [Side(client, namespace) for client in clients]
    for step in steps:
        pending = [side.submit(step) for side in sides]
        replies = [[each.wait() for each in packets] for packets in pending]
        said = [side.normalise(step, got) for side, got in zip(sides, replies, strict=True)]
        divergence = _compare(step, said[0], said[1])
        if divergence:
            return divergence
        _count(step, said[1], statistics)
        if step.pause:
            time.sleep(step.pause)
    return None


def _compare(step: Step, found: list[list[Any]], expected: list[list[Any]]) -> Divergence | None:
    if found == expected:
        return None
    for packet, (one, other) in enumerate(zip(found, expected, strict=True)):
        for index in range(max(len(one), len(other))):
            pair = [side[index] if index < len(side) else "nothing" for side in (one, other)]
            if pair[0] != pair[1]:
                events = step.packets[packet]
                is_create = step.operation in _IMPORTED and index < len(events)
                event = events[index] if is_create else events[0]
                return Divergence(step, packet, index, event, *_differences(*pair))
    raise AssertionError("unequal without a difference")


def _differences(found: Any, expected: Any) -> tuple[Any, Any]:
    """Only the differing fields of two records."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return found, expected
    names = [name for name in found if found[name] != expected.get(name)]
    return {n: found[n] for n in names}, {n: expected.get(n) for n in names}


def _count(step: Step, said: list[list[Any]], statistics: Statistics) -> None:
    statistics.requests += len(said)
    if step.operation in _IMPORTED:
        statistics.events += sum(map(len, said))
        statistics.statuses[step.operation].update(s for packet in said for s, _ in packet)
    else:
        statistics.records += sum(map(len, said))
