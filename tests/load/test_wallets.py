"""Who owns which account, and how choices are spread."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from loadtests.client.records import MUST_NOT_OVERDRAW, join
from loadtests.wallet.wallets import ASSETS, AccountCode, Choices, Population


def test_no_two_workers_and_no_two_assets_share_an_account() -> None:
    accounts = np.concatenate([Population(5, w, 20).accounts() for w in range(3)])
    ids = {join(account["id"]) for account in accounts}
    assert len(ids) == len(accounts) == 3 * len(ASSETS) * (20 + 3)


def test_every_account_carries_its_runs_tag_and_its_assets_ledger() -> None:
    accounts = Population(77, 1, 4).accounts()
    assert set(accounts["user_data_64"]) == {77}
    assert set(accounts["id"][:, 1]) == {77}
    assert set(accounts["ledger"]) == {asset.ledger for asset in ASSETS}


def test_only_the_outside_world_may_owe() -> None:
    accounts = Population(1, 0, 4).accounts()
    may_owe = accounts[(accounts["flags"] & MUST_NOT_OVERDRAW) == 0]
    assert set(may_owe["code"]) == {AccountCode.FUNDING}


def test_an_account_is_where_its_number_says() -> None:
    population = Population(9, 2, 10)
    low = population.wallet_ids(np.array([7]), np.array([3]))[0]
    assert (int(low), 9) == population.wallet(7, 3)
    assert join(population.wallet(7, 3)) in {join(i) for i in population.accounts()["id"]}


@pytest.mark.parametrize(("skew", "least", "most"), [(0.0, 0.5, 2.0), (1.0, 8.0, 60.0)])
def test_popularity_follows_the_skew(skew: float, least: float, most: float) -> None:
    choices = Choices(Population(1, 0, 100), skew=skew, seed=1)
    counts = collections.Counter(choices.wallets(100_000).tolist())
    assert least < counts[0] / counts[50] < most


def test_the_same_seed_makes_the_same_choices_and_another_worker_others() -> None:
    def draw(worker: int) -> list[int]:
        choices = Choices(Population(1, worker, 1000), skew=1.0, seed=3)
        return [choices.payer() for _ in range(50)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


@pytest.mark.parametrize("wallets", [-1, 0, 1, 1 << 31])
def test_an_impossible_population_is_refused(wallets: int) -> None:
    with pytest.raises(ValueError, match="--wallets: expected 2 to"):
        Population(1, 0, wallets)


def test_amounts_are_positive_and_some_exceed_what_a_wallet_opened_with() -> None:
    choices = Choices(Population(1, 0, 10), skew=1.0, seed=1)
    amounts = [choices.amount(0) for _ in range(50_000)]
    assert min(amounts) >= 1
    assert 0 < sum(amount > 1000 * ASSETS[0].unit for amount in amounts) < 1000
