"""The requests of a recorded run's workers: all that a wallet service does, and what it must not.

Pure and seeded. ``Scenario.next`` says what to ask; ``learn`` takes in the answer, because replays
and settlements need ids that were acknowledged. Wallets are few and shared by all workers, so that
they meet; amounts are large against balances, so that overdrafts are tried and refused.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from loadtests.client.records import LINKED, PENDING, POST, VOID, join
from loadtests.run.history import CREATED, Account, Kind, Transfer
from loadtests.wallet.packing import unpack_accounts
from loadtests.wallet.wallets import ASSETS, OPENING_UNITS, AccountCode, Population, TransferCode

#: Seconds until an unsettled hold expires; some expire while workers still try to settle them.
HOLD_TIMEOUT_S = 5
HOLD_EXPIRES_S = 1
#: Acknowledged transfers that a worker remembers, to send them again.
_REMEMBERED = 50
_WORKER_SHIFT = 48


@dataclass(frozen=True)
class Request:
    """One operation to be sent."""

    kind: Kind
    action: str
    transfers: tuple[Transfer, ...] = ()
    accounts: tuple[Account, ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class World:
    """The accounts that all workers share: some wallets in two assets, funding and fees."""

    tag: int
    wallets: int = 8

    #: EUR, and ETH for its amounts above 64 bits.
    assets = (0, 3)

    @property
    def _population(self) -> Population:
        return Population(self.tag, worker=0, wallets=self.wallets)

    def wallet(self, number: int, asset: int) -> int:
        """The account of a wallet."""
        return join(self._population.wallet(number, asset))

    def system(self, code: int, asset: int) -> int:
        """The account of funding or fees."""
        return join(self._population.system(code, asset))

    def accounts(self) -> tuple[Account, ...]:
        """Every account, to be created before anything else."""
        ledgers = [ASSETS[asset].ledger for asset in self.assets]
        everything = unpack_accounts(self._population.accounts().tobytes())
        return tuple(
            one for one in everything if one.ledger in ledgers and one.code != AccountCode.LIQUIDITY
        )


class Scenario:
    """One worker's endless requests."""

    def __init__(self, world: World, worker: int, seed: int) -> None:
        self.world, self.worker = world, worker
        self._random = random.Random(seed << 16 | worker)  # noqa: S311 - reproducible, not secret
        self._new_id = count((worker + 1) << _WORKER_SHIFT).__next__
        self._acknowledged: deque[tuple[Transfer, ...]] = deque(maxlen=_REMEMBERED)
        self._holds: deque[Transfer] = deque(maxlen=_REMEMBERED)
        self._accounts = [one.id for one in world.accounts()]
        self._weights: dict[Callable[[], Request], int] = {
            self.pay: 25,
            self.deposit: 12,
            self.withdraw: 14,
            self.hold: 14,
            self.settle: 12,
            self.overdraw: 5,
            self.replay: 6,
            self.replay_changed: 5,
            self.settle_nothing: 2,
            self.read_accounts: 14,
            self.read_transfers: 6,
        }

    def next(self) -> Request:
        """What to ask now."""
        [action] = self._random.choices(list(self._weights), list(self._weights.values()))
        return action()

    def learn(self, request: Request, statuses: Sequence[str]) -> None:
        """Remember what was acknowledged as created."""
        if request.transfers and all(status == CREATED for status in statuses):
            self._acknowledged.append(request.transfers)
            self._holds += [one for one in request.transfers if one.flags & PENDING]

    # -- actions -------------------------------------------------------------------------------

    def deposit(self) -> Request:
        """Money enters."""
        asset = self._asset()
        funding = self.world.system(AccountCode.FUNDING, asset)
        one = self._transfer(asset, funding, self._wallet(asset), TransferCode.DEPOSIT)
        return Request("create_transfers", "deposit", (one,))

    def pay(self) -> Request:
        """From one wallet to another."""
        asset = self._asset()
        one = self._transfer(asset, *self._two_wallets(asset), TransferCode.PAY)
        return Request("create_transfers", "pay", (one,))

    def withdraw(self) -> Request:
        """Money leaves, with a fee: two linked legs, both or none."""
        asset = self._asset()
        wallet = self._wallet(asset)
        funding = self.world.system(AccountCode.FUNDING, asset)
        fees = self.world.system(AccountCode.FEES, asset)
        first = self._transfer(asset, wallet, funding, TransferCode.WITHDRAW)
        first = replace(first, flags=LINKED, user_data_128=first.id)
        fee = self._transfer(asset, wallet, fees, TransferCode.FEE)
        fee = replace(fee, amount=first.amount // 100 + 1, user_data_128=first.id)
        return Request("create_transfers", "withdraw", (first, fee))

    def hold(self) -> Request:
        """Reserve an amount; some are never settled, and time out."""
        asset = self._asset()
        one = self._transfer(asset, *self._two_wallets(asset), TransferCode.HOLD)
        timeout = self._random.choice((HOLD_TIMEOUT_S, HOLD_TIMEOUT_S, HOLD_EXPIRES_S))
        return Request("create_transfers", "hold", (replace(one, flags=PENDING, timeout=timeout),))

    def settle(self) -> Request:
        """Capture a part of a hold, or void it; now and then one that was settled or timed out."""
        if not self._holds:
            return self.hold()
        held = self._random.choice(self._holds)
        if self._random.random() < 0.8:
            self._holds.remove(held)
        is_post = self._random.random() < 0.6
        amount = held.amount // 2 + 1 if is_post else held.amount
        one = replace(
            held,
            id=self._fresh(),
            pending_id=held.id,
            amount=amount,
            timeout=0,
            flags=POST if is_post else VOID,
            user_data_32=self.worker,
        )
        return Request("create_transfers", "capture" if is_post else "void", (one,))

    def settle_nothing(self) -> Request:
        """Capture a hold that nobody made."""
        asset = self._asset()
        one = self._transfer(asset, *self._two_wallets(asset), TransferCode.HOLD)
        one = replace(one, flags=POST, pending_id=self._fresh())
        return Request("create_transfers", "capture nothing", (one,))

    def overdraw(self) -> Request:
        """Pay more than all wallets together have."""
        asset = self._asset()
        one = self._transfer(asset, *self._two_wallets(asset), TransferCode.PAY)
        amount = OPENING_UNITS * ASSETS[asset].unit * 10**6
        return Request("create_transfers", "overdraw", (replace(one, amount=amount),))

    def replay(self) -> Request:
        """Send something acknowledged once more."""
        if not self._acknowledged:
            return self.pay()
        again = self._random.choice(self._acknowledged)
        return Request("create_transfers", "replay", again)

    def replay_changed(self) -> Request:
        """Send something acknowledged once more, with another amount."""
        single = [one for one in self._acknowledged if len(one) == 1]
        if not single:
            return self.deposit()
        [again] = self._random.choice(single)
        return Request("create_transfers", "changed", (replace(again, amount=again.amount + 1),))

    def read_accounts(self) -> Request:
        """Read the balances of a few accounts."""
        size = self._random.choice((1, 1, 4, len(self._accounts)))
        ids = tuple(self._random.sample(self._accounts, size))
        return Request("lookup_accounts", "balances", ids=ids)

    def read_transfers(self) -> Request:
        """Read transfers that were acknowledged, and one that nobody sent."""
        known = [one.id for batch in self._acknowledged for one in batch]
        ids = (*self._random.sample(known, min(5, len(known))), self._fresh())
        return Request("lookup_transfers", "statement", ids=ids)

    # -- parts ---------------------------------------------------------------------------------

    def _fresh(self) -> int:
        return self.world.tag << 64 | self._new_id()

    def _asset(self) -> int:
        return self._random.choice(self.world.assets)

    def _wallet(self, asset: int) -> int:
        return self.world.wallet(self._random.randrange(self.world.wallets), asset)

    def _two_wallets(self, asset: int) -> tuple[int, int]:
        one, other = self._random.sample(range(self.world.wallets), 2)
        return self.world.wallet(one, asset), self.world.wallet(other, asset)

    def _transfer(self, asset: int, debit: int, credit: int, code: int) -> Transfer:
        """With a random amount: mostly a tenth of what a deposit brings, sometimes all of it."""
        unit = ASSETS[asset].unit
        share = self._random.choice((0.01, 0.1, 0.1, 0.5, 1.0))
        return Transfer(
            id=self._fresh(),
            debit_account_id=debit,
            credit_account_id=credit,
            amount=1 + int(self._random.random() * share * OPENING_UNITS) * unit,
            user_data_64=self.world.tag,
            user_data_32=self.worker,
            ledger=ASSETS[asset].ledger,
            code=code,
        )
