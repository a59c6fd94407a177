"""Wrong answers on request: what a ledger must never do, to test the programs that check it.

Nothing here happens unless `Faults` asks for it. A lie changes the ledger until the next start,
because the journal has the truth. It is told to clients of every release, in the form that theirs
reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..ledger.ledger import Ledger
from ..protocol import multibatch, transfer_flags
from ..protocol.aegis import Buffer
from ..protocol.operations import Operation, batches_of, timestamps_needed
from ..protocol.records import RECORD_SIZE, U128_MAX
from ..protocol.status import CREATED
from .faults import Faults
from .log import logger

_LOG = logger("faults")
_RESULT = struct.Struct("<QQ")  # timestamp, and the status with its padding
_MOVES_NOTHING_ANEW = transfer_flags.PENDING | transfer_flags.POST | transfer_flags.VOID


class Liar:
    """Executes requests on a ledger. Its answers are right while all rates of the faults are 0.

    `faults` gives those of the moment.
    """

    def __init__(self, ledger: Ledger, faults: Callable[[], Faults]) -> None:
        self._ledger, self._faults = ledger, faults
        self._first_answers: dict[tuple[int, bytes], bytes] = {}

    def execute(self, operation: Operation, body: Buffer, timestamp: int) -> bytes:
        """Like `Ledger.execute`, except for the lies that the faults ask for."""
        faults = self._faults()
        if not (faults.lose_commits or faults.double_transfers or faults.stale_reads):
            return self._ledger.execute(operation, body, timestamp)
        is_create = operation.kind == "create_transfers"
        if is_create and faults.strikes(faults.lose_commits):
            return _made_up(operation, body, timestamp)
        rows = len(self._ledger.timestamps)
        result = self._ledger.execute(operation, body, timestamp)
        if is_create and faults.strikes(faults.double_transfers):
            self._move_again(rows)
        if operation.kind == "lookup_accounts":
            first = self._first_answers.setdefault((operation.number, bytes(body)), result)
            if faults.strikes(faults.stale_reads):
                _LOG.info("a lie: accounts shown as when first asked for")
                return first
        return result

    def _move_again(self, rows: int) -> None:
        """What was created since there were so many rows moves its amount a second time.

        Except what would leave an account with more than 128 bits.
        """
        moved = 0
        for row in range(rows, len(self._ledger.timestamps)):
            event = self._ledger.transfer(row)
            debit, credit = self._ledger.accounts[event[1]], self._ledger.accounts[event[2]]
            amount = event[3] | event[4] << 64
            room = U128_MAX - max(
                debit.debits_pending + debit.debits_posted,
                credit.credits_pending + credit.credits_posted,
            )
            if not event[12] & _MOVES_NOTHING_ANEW and amount <= room:
                debit.debits_posted += amount
                credit.credits_posted += amount
                moved += 1
        _LOG.info("a lie: %d transfers moved their amount twice", moved)


def _made_up(operation: Operation, body: Buffer, timestamp: int) -> bytes:
    """The answer that everything was created."""
    at = timestamp - timestamps_needed(operation, body)
    answers = []
    events = 0
    for batch in batches_of(operation, body):
        count = len(batch) // RECORD_SIZE
        moments = range(at + events + 1, at + events + count + 1)
        created = b"".join(_RESULT.pack(moment, CREATED) for moment in moments)
        answers.append(b"" if operation.sparse else created)  # a sparse answer has what failed
        events += count
    _LOG.info("a lie: %d transfers acknowledged, and not created", events)
    return (
        multibatch.encode(answers, operation.result_size) if operation.multi_batch else answers[0]
    )
