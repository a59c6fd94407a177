"""The history of a recorded run: who asked what, when, what came back. One JSON line an operation.

``history.jsonl`` in a run's directory. A line says which worker and session asked for what (ids,
transfers), when it was invoked and completed (``time.monotonic_ns`` of the one process that runs
all workers, so instants compare), the outcome, and what the cluster answered: statuses, its
timestamps, what was read. u128 values are hexadecimal strings, zero fields are left out. The last
line is ``{"end": N}``: without it the history was cut off and proves nothing.

Outcomes: ``ok`` (answered, nothing refused), ``rejected`` (answered, something refused) and
``unknown`` (no answer came: it may have been executed, may still be, or never).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from cluster.refusal import Refusal, understood
from loadtests.client.records import ACCOUNT, TRANSFER, wide

Outcome = Literal["ok", "rejected", "unknown"]
Kind = Literal[
    "create_accounts", "create_transfers", "lookup_accounts", "lookup_transfers", "query_transfers"
]

FILE = "history.jsonl"
CREATED, EXISTS = "created", "exists"

_FIX = "record another"
#: What the checker sorts and groups operations by, and what it takes them for.
_KINDS = {
    **dict.fromkeys(("number", "worker", "session", "invoked", "timestamp"), int),
    **dict.fromkeys(("kind", "action", "outcome"), str),
    "completed": int | None,
}
_WIDE = wide(TRANSFER) | wide(ACCOUNT)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer as sent, or (with a timestamp) as the ledger holds it. TigerBeetle's own names."""

    id: int
    debit_account_id: int = 0
    credit_account_id: int = 0
    amount: int = 0
    pending_id: int = 0
    user_data_128: int = 0
    user_data_64: int = 0
    user_data_32: int = 0
    timeout: int = 0
    ledger: int = 0
    code: int = 0
    flags: int = 0
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """An account as created, or (with a timestamp) as the ledger holds it."""

    id: int
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0
    user_data_128: int = 0
    user_data_64: int = 0
    user_data_32: int = 0
    ledger: int = 0
    code: int = 0
    flags: int = 0
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of one worker. Instants in ns; ``timestamp`` is the cluster's, 0 if not told."""

    number: int
    worker: int
    session: int
    kind: Kind
    action: str
    invoked: int
    completed: int | None = None
    outcome: Outcome = "unknown"
    timestamp: int = 0
    ids: tuple[int, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    accounts: tuple[Account, ...] = ()
    statuses: tuple[str, ...] = ()
    timestamps: tuple[int, ...] = ()
    found_transfers: tuple[Transfer, ...] = ()
    found_accounts: tuple[Account, ...] = ()
    final: bool = False

    def __str__(self) -> str:
        return f"operation {self.number} (worker {self.worker}, {self.action})"

    @property
    def is_create(self) -> bool:
        """True for what may change the ledger."""
        return self.kind in ("create_transfers", "create_accounts")

    @property
    def events(self) -> tuple[Transfer | Account, ...]:
        """What was to be created."""
        return self.transfers or self.accounts


@dataclass(frozen=True)
class History:
    """All operations by number, and whether the recording ended in order."""

    operations: tuple[Operation, ...]
    is_complete: bool = True


class Writer:
    """Writes a history as it happens. A line is whole or absent, and on its way to disk at once."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = (run / FILE).open("w", encoding="utf-8", buffering=1)
        self.count = 0

    def add(self, operation: Operation) -> None:
        """Note a finished operation, or one whose answer is no longer awaited."""
        self._file.write(json.dumps(_plain(operation), separators=(",", ":")) + "\n")
        self.count += 1

    def close(self) -> None:
        """Say that this is all, and close."""
        self._file.write(json.dumps({"end": self.count}) + "\n")
        self._file.close()


def read(run: Path) -> History:
    """The history in a run's directory. Raises Refusal for a line that is none."""
    operations, ended = [], None
    with understood(run / FILE, expected="a recorded history", fix=_FIX):
        for line in _lines(run / FILE):
            if "end" in line:
                ended = line["end"]
            else:
                operations.append(_operation(line))
    operations.sort(key=lambda operation: operation.number)
    return History(tuple(operations), is_complete=ended == len(operations))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return  # torn by a crash of the recorder: then "end" is missing, too
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise Refusal(
                    f"{path}:{number}", expected="a JSON line", found=error, fix=_FIX
                ) from None


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON objects, without what is zero or empty."""
    plain: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if item in (0, (), None, False) and field.name not in ("number", "worker", "session"):
            continue
        if field.name in _WIDE:
            item = hex(item)
        elif field.name == "ids":
            item = [hex(one) for one in item]
        elif isinstance(item, tuple) and isinstance(item[0], Transfer | Account):
            item = [_plain(one) for one in item]
        plain[field.name] = item
    return plain


def _operation(line: dict[str, Any]) -> Operation:
    try:
        for key in ("transfers", "found_transfers"):
            line[key] = tuple(_record(Transfer, one) for one in line.get(key, ()))
        for key in ("accounts", "found_accounts"):
            line[key] = tuple(_record(Account, one) for one in line.get(key, ()))
        if "ids" in line:
            line["ids"] = tuple(int(one, 16) for one in line["ids"])
        for key in ("statuses", "timestamps"):
            line[key] = tuple(line.get(key, ()))
        operation = Operation(**line)
        if not all(isinstance(getattr(operation, name), kind) for name, kind in _KINDS.items()):
            raise TypeError("values of other types")
        return operation
    except (TypeError, ValueError) as error:
        found = f"{line}: {error}"
        raise Refusal("history", expected="an operation", found=found, fix=_FIX) from None


_Record = TypeVar("_Record", Transfer, Account)


def _record(shape: type[_Record], line: dict[str, Any]) -> _Record:
    return shape(**{name: int(v, 16) if name in _WIDE else v for name, v in line.items()})
