"""Indexes that only reads need: built from the ledger when they are first asked for.

They tell which transfers touch an account, and both accounts' balances just after each transfer
and each expiry. Both follow from the committed transfers, so they are brought up to date on
demand: a ledger that is only written to never pays for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import account_flags, transfer_flags
from ..protocol.records import Balances, TransferRow

if TYPE_CHECKING:
    from .ledger import Ledger


class History:
    """Row numbers per account, and balances after each transfer and expiry."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._indexed = 0
        self._rows_of: dict[bytes, list[int]] = {}
        self._expired_done = 0
        self._current: dict[bytes, Balances] = {}
        self._after: list[tuple[Balances, Balances]] = []
        self._after_expiry: list[tuple[Balances, Balances]] = []

    def rows_of(self, account_id: bytes) -> list[int]:
        """Rows of the transfers on either side of an account, in order."""
        find, count = self._rows_of.setdefault, len(self._ledger.timestamps)
        for row in range(self._indexed, count):
            event = self._ledger.transfer(row)
            find(event[1], []).append(row)
            find(event[2], []).append(row)
        self._indexed = count
        return self._rows_of.get(account_id, [])

    def after_transfer(self, row: int) -> tuple[Balances, Balances]:
        """The debit and the credit account's balances just after the transfer in `row`."""
        self._catch_up()
        return self._after[row]

    def after_expiry(self, position: int) -> tuple[Balances, Balances]:
        """The same just after the expiry at this position of `Ledger.expired`."""
        self._catch_up()
        return self._after_expiry[position]

    def _catch_up(self) -> None:
        """Follow the ledger's transfers and expiries in the order they happened."""
        ledger = self._ledger
        while True:
            if self._expired_done < len(ledger.expired):
                before, _, row = ledger.expired[self._expired_done]
            else:
                before, row = len(ledger.timestamps), -1
            while len(self._after) < before:
                event = ledger.transfer(len(self._after))
                self._after.append(self._follow(event))
            if row < 0:
                return
            self._after_expiry.append(self._release(ledger.transfer(row)))
            self._expired_done += 1

    def _follow(self, event: TransferRow) -> tuple[Balances, Balances]:
        amount, flags = event[3] | event[4] << 64, event[12]
        if flags & transfer_flags.VOID:
            return self._release(self._held(event))
        if flags & transfer_flags.POST:
            held = self._held(event)
            return self._move(event, -(held[3] | held[4] << 64), amount)
        if not flags & transfer_flags.PENDING:
            return self._move(event, 0, amount)
        return self._move(event, amount, 0, closed=True)

    def _held(self, event: TransferRow) -> TransferRow:
        return self._ledger.transfer(self._ledger.transfers[event[5]])

    def _release(self, held: TransferRow) -> tuple[Balances, Balances]:
        return self._move(held, -(held[3] | held[4] << 64), 0, closed=False)

    def _move(
        self, event: TransferRow, pending: int, posted: int, closed: bool | None = None
    ) -> tuple[Balances, Balances]:
        """Add to both accounts' balances; close or reopen the accounts that the event says."""
        closes = event[12] & transfer_flags.CLOSING_DEBIT
        dpe, dpo, cpe, cpo, flags = self._balances(event[1], closed if closes else None)
        debit = self._current[event[1]] = (dpe + pending, dpo + posted, cpe, cpo, flags)
        closes = event[12] & transfer_flags.CLOSING_CREDIT
        dpe, dpo, cpe, cpo, flags = self._balances(event[2], closed if closes else None)
        credit = self._current[event[2]] = (dpe, dpo, cpe + pending, cpo + posted, flags)
        return debit, credit

    def _balances(self, account_id: bytes, closed: bool | None) -> Balances:
        """An account's balances so far, and its flags, now with `closed` if that is not None."""
        current = self._current.get(account_id)
        if current is None:
            current = (0, 0, 0, 0, self._ledger.accounts[account_id].flags_created)
        if closed is None:
            return current
        flags = current[4] | account_flags.CLOSED if closed else current[4] & ~account_flags.CLOSED
        return (*current[:4], flags)
