"""The wallet model: assets as ledgers, who owns which account, and what the numbers mean.

Every run makes its own accounts, so that the audit can expect each balance exactly. The high half
of an account's id is the run's tag; the low half names worker, asset and wallet, so no two workers
share an account. docs/wallet-model.md is the table for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np
import numpy.typing as npt

from loadtests.client.records import ACCOUNT, MUST_NOT_OVERDRAW, Array


@dataclass(frozen=True)
class Asset:
    """One ledger. Amounts are whole minor units: 10**scale of them are one unit of the asset."""

    symbol: str
    ledger: int
    scale: int

    @property
    def unit(self) -> int:
        """Minor units in one unit."""
        return int(10**self.scale)


#: Fiat ledgers carry their ISO 4217 number, crypto assets our own from 10000 on. ETH's 18 digits
#: need amounts above 64 bits, which is a reason to have it here.
ASSETS = (
    Asset("EUR", 978, 2),
    Asset("USD", 840, 2),
    Asset("BTC", 10001, 8),
    Asset("ETH", 10002, 18),
)


class AccountCode:
    """Account.code: what an account is for."""

    WALLET = 1
    FUNDING = 2
    FEES = 3
    LIQUIDITY = 4


class TransferCode:
    """Transfer.code: why money moves."""

    OPENING = 1
    DEPOSIT = 10
    WITHDRAW = 11
    PAY = 12
    HOLD = 13
    EXCHANGE = 14
    FEE = 15
    SETTLE = 16


#: What each wallet starts with, in units of its asset; the liquidity accounts get as much for
#: each wallet, a thousand times. Payments are 1/1000 of a wallet on the median and have a long
#: tail, so that some ask for more than the wallet has: overdrafts must be tried and refused.
OPENING_UNITS = 1_000
AMOUNT_MEDIAN = 1 / 1000
AMOUNT_SIGMA = 2.0
FEE_DIVISOR = 200
LIQUIDITY_FACTOR = 1_000

_ASSET_SHIFT, _WORKER_SHIFT = 32, 40
_SYSTEM_NUMBER = 1 << 31
WALLETS_MAX = _SYSTEM_NUMBER
WORKERS_MAX = 1 << 16

Pair = tuple[int, int]


@dataclass(frozen=True)
class Population:
    """The accounts of one worker in one run."""

    tag: int
    worker: int
    wallets: int

    def __post_init__(self) -> None:
        if not 2 <= self.wallets < WALLETS_MAX:
            raise ValueError(f"--wallets: expected 2 to {WALLETS_MAX - 1}, found {self.wallets}")
        if not 0 <= self.worker < WORKERS_MAX:
            raise ValueError(f"worker index: expected below {WORKERS_MAX}, found {self.worker}")

    def wallet(self, number: int, asset: int) -> Pair:
        """The account id of wallet ``number`` in ASSETS[asset], as (low, high)."""
        return self.worker << _WORKER_SHIFT | asset << _ASSET_SHIFT | number, self.tag

    def system(self, code: int, asset: int) -> Pair:
        """The account id of the funding, fees or liquidity account of ASSETS[asset]."""
        return self.wallet(_SYSTEM_NUMBER + code, asset)

    def wallet_ids(self, numbers: Array, assets: Array) -> npt.NDArray[np.uint64]:
        """Low halves of the account ids of many wallets at once."""
        high = np.uint64(self.worker << _WORKER_SHIFT)
        shifted = assets.astype(np.uint64) << np.uint64(_ASSET_SHIFT)
        low: npt.NDArray[np.uint64] = high | shifted | numbers.astype(np.uint64)
        return low

    def accounts(self) -> Array:
        """Every account to be created, as ACCOUNT records: system accounts first."""
        systems = [AccountCode.FUNDING, AccountCode.FEES, AccountCode.LIQUIDITY]
        parts = []
        for index, asset in enumerate(ASSETS):
            part = np.zeros(len(systems) + self.wallets, ACCOUNT)
            for row, code in enumerate(systems):
                part["id"][row] = self.system(code, index)
                part["code"][row] = code
            # Only FUNDING may have a negative balance: money enters and leaves through it.
            part["flags"][1:] = MUST_NOT_OVERDRAW
            wallets = part[len(systems) :]
            numbers = np.arange(self.wallets)
            wallets["id"][:, 0] = self.wallet_ids(numbers, np.full(self.wallets, index))
            wallets["id"][:, 1] = self.tag
            wallets["code"] = AccountCode.WALLET
            part["ledger"] = asset.ledger
            part["user_data_64"] = self.tag
            part["user_data_32"] = self.worker
            parts.append(part)
        return np.concatenate(parts)


class Choices:
    """Random choices without end, made in bulk: wallets by popularity, assets, amounts."""

    #: Primes, so that the endless combinations do not repeat together.
    _LENGTHS = (65521, 65519, 65497, 65479, 65449)

    def __init__(self, population: Population, *, skew: float, seed: int) -> None:
        """``skew`` is Zipf's exponent: 0 for everybody alike, 1 for a few hot wallets."""
        if skew < 0:
            raise ValueError(f"--skew: expected 0 or more, found {skew}")
        self.random = np.random.default_rng([seed, population.worker])
        weights = 1.0 / np.arange(1, population.wallets + 1) ** skew
        self._edges = np.cumsum(weights) / weights.sum()
        payers, payees, assets, others, amounts = self._LENGTHS
        self.payer = cycle(self.wallets(payers).tolist()).__next__
        self.payee = cycle(self.wallets(payees).tolist()).__next__
        self.asset = cycle(self.random.integers(len(ASSETS), size=assets).tolist()).__next__
        self.other = cycle(self.random.integers(1, len(ASSETS), size=others).tolist()).__next__
        spread = self.random.lognormal(np.log(AMOUNT_MEDIAN), AMOUNT_SIGMA, amounts)
        self.fraction = cycle((spread * 1e9).astype(np.int64).tolist()).__next__

    def wallets(self, count: int) -> npt.NDArray[np.int64]:
        """Wallet numbers, popular ones more often."""
        chosen = np.searchsorted(self._edges, self.random.random(count))
        return np.minimum(chosen, len(self._edges) - 1).astype(np.int64)

    def amount(self, asset: int) -> int:
        """Minor units: a share of what a wallet opened with, at least one."""
        return int(1 + self.fraction() * OPENING_UNITS * ASSETS[asset].unit // 1_000_000_000)
