"""Wrong answers on request: what a ledger must never do, to test the programs that check it.

Nothing here happens unless `Faults` asks for it. A lie changes the ledger until the next start,
because the journal has the truth.
"""

from __future__ import annotations

import struct

from ..ledger.ledger import Ledger
from ..protocol import multibatch, transfer_flags
from ..protocol.aegis import Buffer
from ..protocol.operations import Operation, batches_of, timestamps_needed
from ..protocol.records import RECORD_SIZE, TRANSFER, TransferRow
from ..protocol.status import CREATED
from .faults import Faults

_RESULT = struct.Struct("<QQ")  # timestamp, and the status with its padding
_MOVES_NOTHING_ANEW = transfer_flags.PENDING | transfer_flags.POST | transfer_flags.VOID


class Liar:
    """Executes requests on a ledger. Its answers are right while all rates of `faults` are 0."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger, self._faults = ledger, faults
        self._first_answers: dict[bytes, bytes] = {}

    def execute(self, operation: Operation, body: Buffer, timestamp: int) -> bytes:
        """Like `Ledger.execute`, except for the lies that `faults` asks for."""
        faults = self._faults
        if not (faults.lose_commits or faults.double_transfers or faults.stale_reads):
            return self._ledger.execute(operation, body, timestamp)
        is_create = operation.kind == "create_transfers" and not operation.sparse
        if is_create and faults.strikes(faults.lose_commits):
            return self._made_up(operation, body, timestamp)
        result = self._ledger.execute(operation, body, timestamp)
        if is_create and faults.strikes(faults.double_transfers):
            self._move_again(operation, body, result)
        if operation.kind == "lookup_accounts":
            first = self._first_answers.setdefault(bytes(body), result)
            if faults.strikes(faults.stale_reads):
                return first
        return result

    def _made_up(self, operation: Operation, body: Buffer, timestamp: int) -> bytes:
        """Answer that everything was created, and create nothing."""
        at = timestamp - timestamps_needed(operation, body)
        answers = []
        for batch in batches_of(operation, body):
            count = len(batch) // RECORD_SIZE
            answers.append(b"".join(_RESULT.pack(at + i + 1, CREATED) for i in range(count)))
            at += count
        return multibatch.encode(answers, operation.result_size)

    def _move_again(self, operation: Operation, body: Buffer, result: bytes) -> None:
        """What was created moves its amount a second time."""
        batches = batches_of(operation, body)
        answers = multibatch.decode(result, operation.result_size)
        for batch, answer in zip(batches, answers, strict=True):
            results = _RESULT.iter_unpack(answer)
            for (_, status), event in zip(results, TRANSFER.iter_unpack(batch), strict=True):
                if status == CREATED and not event[12] & _MOVES_NOTHING_ANEW:
                    self._move(event)

    def _move(self, event: TransferRow) -> None:
        amount = event[3] | event[4] << 64
        self._ledger.accounts[event[1]].debits_posted += amount
        self._ledger.accounts[event[2]].credits_posted += amount
