"""What wallet owners do, as actions on a ledger. Each is measured under its own name.

An action ends in one outcome: ok; rejected, for a business reason the cluster gave; or unknown,
when no reply came in time. An unknown one is retried with the same ids, where `exists` is success.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Any

import gevent
import numpy as np
import tigerbeetle as tb

from loadtests.client.bridge import BridgeError, Unanswered
from loadtests.client.ledger import Ledger
from loadtests.client.records import (
    ACCOUNT_EXISTS,
    BATCH_MAX,
    CREATED,
    EXISTS,
    LINKED,
    PENDING,
    POST,
    TRANSFER,
    VOID,
    Array,
    pack_transfer,
    split,
)
from loadtests.run.meter import Meter
from loadtests.wallet.wallets import (
    ASSETS,
    FEE_DIVISOR,
    LIQUIDITY_FACTOR,
    OPENING_UNITS,
    AccountCode,
    Choices,
    Pair,
    Population,
    TransferCode,
)

HOLD_TIMEOUT_S = 10
#: The cluster expires holds a little after their timeout: it looks once a second or so.
EXPIRY_SLACK_S = 15.0
HOLD_EXPIRES_S = 1
STATEMENT_LINES = 10
RETRIES_MAX = 3
_WORKER_SHIFT = 48

REASONS = {int(status): status.name.lower() for status in tb.CreateTransferStatus}


class Bank:
    """One worker's wallets on a ledger, and everything that can be done with them."""

    def __init__(
        self,
        ledger: Ledger,
        population: Population,
        choices: Choices,
        meter: Meter,
        tag: int | None = None,
    ) -> None:
        """``tag`` is the run's; by default that which has made the population, too."""
        self.tag = population.tag if tag is None else tag
        self.ledger, self.population, self.choices = ledger, population, choices
        self.meter = meter
        self._wallet, self._system = population.wallet, population.system
        # Ascending ids are the ones TigerBeetle stores fastest.
        self._new_id = count((population.worker << _WORKER_SHIFT) + 1).__next__
        self._batch_max = min(ledger.batch_max, BATCH_MAX)
        self.stopping = False  # set when a run ends: from then on nothing is retried

    # -- before the run ---------------------------------------------------------------------

    def open(self) -> Array:
        """Create every account and fund it; returns the accounts. Raises BridgeError."""
        accounts = self.population.accounts()
        statuses = self.ledger.create_accounts(accounts)["status"]
        refused = statuses[(statuses != CREATED) & (statuses != ACCOUNT_EXISTS)]
        if len(refused):
            reason = tb.CreateAccountStatus(int(refused[0])).name.lower()
            raise BridgeError(f"creating wallets: {len(refused)} refused, the first: {reason}")
        opening = self._opening(accounts)
        for start in range(0, len(opening), self._batch_max):
            events = opening[start : start + self._batch_max].tobytes()
            wrong = [s for s in self.ledger.create_transfers(events) if s not in (CREATED, EXISTS)]
            if wrong:
                raise BridgeError(
                    f"funding wallets: {len(wrong)} refused, the first: {REASONS[wrong[0]]}"
                )
        return accounts

    def take_over(self) -> Array:
        """The accounts of an earlier run as they are, once nothing is on hold. Raises BridgeError.

        What is on hold may still come back, and would not be this run's doing.
        """
        asked = self.population.accounts()
        until = perf_counter() + HOLD_TIMEOUT_S + EXPIRY_SLACK_S
        while True:
            found = self.ledger.read_accounts(asked["id"])
            if len(found) < len(asked):
                raise BridgeError(
                    f"wallets: expected {len(asked):,} to be there, found {len(found):,}"
                )
            held = int((found["debits_pending"] != 0).any(axis=1).sum())
            if not held:
                return found
            if perf_counter() > until:
                raise BridgeError(f"wallets: {held:,} have money on hold that does not time out")
            gevent.sleep(1)

    def _opening(self, accounts: Array) -> Array:
        """One transfer from FUNDING to each wallet and liquidity account."""
        to = accounts[np.isin(accounts["code"], (AccountCode.WALLET, AccountCode.LIQUIDITY))]
        events = self.new_transfers(len(to))
        events["credit_account_id"] = to["id"]
        events["ledger"] = to["ledger"]
        events["code"] = TransferCode.OPENING
        for index, asset in enumerate(ASSETS):
            of_asset = to["ledger"] == asset.ledger
            liquid = of_asset & (to["code"] == AccountCode.LIQUIDITY)
            opening = OPENING_UNITS * asset.unit
            events["debit_account_id"][of_asset] = self._system(AccountCode.FUNDING, index)
            events["amount"][of_asset] = split(opening)
            events["amount"][liquid] = split(opening * self.population.wallets * LIQUIDITY_FACTOR)
        return events

    def new_transfers(self, size: int) -> Array:
        """``size`` transfers of this run with fresh ids, everything else zero."""
        events = np.zeros(size, TRANSFER)
        first = self._new_id()
        events["id"][:, 0] = np.arange(first, first + size, dtype=np.uint64)
        events["id"][:, 1] = self.tag
        events["user_data_64"] = self.tag
        events["user_data_32"] = self.population.worker
        self._new_id = count(first + size).__next__
        return events

    # -- actions: `since` is the instant from which latency counts ----------------------------

    def deposit(self, since: float) -> None:
        """Money enters: FUNDING to a wallet."""
        asset = self.choices.asset()
        wallet = self._wallet(self.choices.payee(), asset)
        funding = self._system(AccountCode.FUNDING, asset)
        amount = self.choices.amount(asset)
        self._post(
            "deposit", self._transfer(asset, funding, wallet, amount, TransferCode.DEPOSIT), since
        )

    def withdraw(self, since: float) -> None:
        """Money leaves, and a fee is due: two linked transfers, both or none."""
        asset = self.choices.asset()
        wallet = self._wallet(self.choices.payer(), asset)
        amount = self.choices.amount(asset)
        funding = self._system(AccountCode.FUNDING, asset)
        legs = [
            (asset, wallet, funding, amount, TransferCode.WITHDRAW),
            (asset, wallet, self._fees(asset), amount // FEE_DIVISOR + 1, TransferCode.FEE),
        ]
        self._post("withdraw", self._chain(legs), since)

    def pay(self, since: float) -> None:
        """From one wallet to another."""
        asset, payer, payee = self._two_wallets()
        amount = self.choices.amount(asset)
        self._post("pay", self._transfer(asset, payer, payee, amount, TransferCode.PAY), since)

    def hold_and_capture(self, since: float) -> None:
        """Reserve an amount for a merchant, then take a part of it; the rest is released."""
        self._hold(since, POST, "capture")

    def hold_and_void(self, since: float) -> None:
        """Reserve an amount, then give it back."""
        self._hold(since, VOID, "void")

    def hold_and_forget(self, since: float) -> None:
        """Reserve an amount and let it time out: the cluster gives it back by itself."""
        asset, payer, payee = self._two_wallets()
        amount = self.choices.amount(asset)
        event = self._transfer(
            asset, payer, payee, amount, TransferCode.HOLD, flags=PENDING, timeout_s=HOLD_EXPIRES_S
        )
        self._post("hold", event, since)

    def exchange(self, since: float) -> None:
        """Sell one asset for another through the liquidity accounts, less a fee: all or none."""
        sold = self.choices.asset()
        bought = (sold + self.choices.other()) % len(ASSETS)
        number = self.choices.payer()
        amount = self.choices.amount(sold)
        # Every wallet opened with the same number of units, so one unit buys one unit.
        gained = max(1, amount * ASSETS[bought].unit // ASSETS[sold].unit)
        liquidity = AccountCode.LIQUIDITY
        seller, buyer = self._wallet(number, sold), self._wallet(number, bought)
        legs = [
            (sold, seller, self._system(liquidity, sold), amount, TransferCode.EXCHANGE),
            (bought, self._system(liquidity, bought), buyer, gained, TransferCode.EXCHANGE),
            (sold, seller, self._fees(sold), amount // FEE_DIVISOR + 1, TransferCode.FEE),
        ]
        self._post("exchange", self._chain(legs), since)

    def balance(self, since: float) -> None:
        """Read one wallet's account."""
        low, high = self._wallet(self.choices.payer(), self.choices.asset())
        asked = (high << 64 | low).to_bytes(16, "little")
        self._read("balance", since, lambda: self.ledger.lookup_accounts(asked)[0], "not found")

    def statement(self, since: float) -> None:
        """Read the latest transfers of one wallet's account."""
        account = self._wallet(self.choices.payer(), self.choices.asset())
        # Every wallet was funded, so an empty statement means that transfers are missing.
        statement = self.ledger.statement
        self._read("statement", since, lambda: len(statement(account, STATEMENT_LINES)), "empty")

    def settle(self, since: float) -> None:
        """A full batch of small payments between random wallets, as in an end-of-day run."""
        size, random = self._batch_max, self.choices.random
        events = self.new_transfers(size)
        assets = random.integers(len(ASSETS), size=size)
        payers = random.integers(self.population.wallets, size=size)
        steps = random.integers(1, self.population.wallets, size=size)
        payees = (payers + steps) % self.population.wallets
        for side, numbers in (("debit_account_id", payers), ("credit_account_id", payees)):
            events[side][:, 0] = self.population.wallet_ids(numbers, assets)
            events[side][:, 1] = self.population.tag
        events["amount"][:, 0] = 1
        events["ledger"] = _LEDGERS[assets]
        events["code"] = TransferCode.SETTLE
        self._post("settle", events.tobytes(), since)

    # -- parts ------------------------------------------------------------------------------

    def _two_wallets(self) -> tuple[int, Pair, Pair]:
        asset, payer, payee = self.choices.asset(), self.choices.payer(), self.choices.payee()
        if payee == payer:
            payee = (payer + 1) % self.population.wallets
        return asset, self._wallet(payer, asset), self._wallet(payee, asset)

    def _fees(self, asset: int) -> Pair:
        return self._system(AccountCode.FEES, asset)

    def _transfer(
        self,
        asset: int,
        debit: Pair,
        credit: Pair,
        amount: int,
        code: int,
        *,
        number: int = 0,
        **more: Any,
    ) -> bytes:
        """One packed transfer of this run; ``more`` as pack_transfer takes it."""
        return pack_transfer(
            number or self._new_id(),
            self.tag,
            debit,
            credit,
            amount,
            ledger=ASSETS[asset].ledger,
            code=code,
            user_data_64=self.tag,
            user_data_32=self.population.worker,
            **more,
        )

    def _chain(self, legs: list[tuple[int, Pair, Pair, int, int]]) -> bytes:
        """Linked transfers. All carry the first one's id as user_data_128, for the audit."""
        first = self._new_id()
        chain = (first, self.tag)
        last = len(legs) - 1
        return b"".join(
            self._transfer(
                *leg,
                flags=LINKED if row < last else 0,
                chain=chain,
                number=first if row == 0 else 0,
            )
            for row, leg in enumerate(legs)
        )

    def _hold(self, since: float, flag: int, action: str) -> None:
        asset, payer, payee = self._two_wallets()
        amount = self.choices.amount(asset)
        number, code = self._new_id(), TransferCode.HOLD
        held = {"flags": PENDING, "timeout_s": HOLD_TIMEOUT_S, "number": number}
        event = self._transfer(asset, payer, payee, amount, code, **held)
        if not self._post("hold", event, since):
            return
        # Send every field, though zeros would be inherited: the audit compares what was sent.
        taken = amount // 2 + 1 if flag == POST else amount
        pending = (number, self.tag)
        event = self._transfer(asset, payer, payee, taken, code, flags=flag, pending=pending)
        self._post(action, event, perf_counter())

    def _read(self, action: str, since: float, ask: Callable[[], Any], missing: str) -> None:
        try:
            found = ask()
        except Unanswered:
            self._met(action, "unknown", since, "no reply in time")
            return
        self._met(action, "ok" if found else "error", since, "" if found else missing)

    def _met(self, action: str, outcome: str, since: float, reason: str = "") -> None:
        """An action has ended, with the ledger's last call."""
        self.meter.add(action, outcome, since, reason, self.ledger.waits)

    def _post(self, action: str, events: bytes, since: float) -> bool:
        """Create transfers, retrying while the outcome is unknown. True when they are in."""
        for attempt in range(1 + RETRIES_MAX):
            try:
                statuses = self.ledger.create_transfers(events)
            except Unanswered:
                self._met(action, "unknown", since, "no reply in time")
                if self.stopping:
                    return False
                action, since = "retry", perf_counter()
                continue
            # A chain that was committed before answers `exists` for one leg, and fails the rest.
            if statuses.count(CREATED) == len(statuses):  # nearly always, and 8189 at a time
                self._met(action, "ok", since)
                return True
            wrong = [status for status in statuses if status not in (CREATED, EXISTS)]
            if not wrong or (attempt and EXISTS in statuses):
                self._met(action, "ok", since)
                return True
            self._met(action, "rejected", since, _reason(wrong))
            return False
        return False


def _reason(statuses: list[int]) -> str:
    """The status of the transfer that broke a chain, not of those that failed with it."""
    own = [s for s in statuses if s != tb.CreateTransferStatus.LINKED_EVENT_FAILED]
    return str(REASONS[(own or statuses)[0]])


_LEDGERS = np.array([asset.ledger for asset in ASSETS], np.uint32)
