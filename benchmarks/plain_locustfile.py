"""The reference: the same wallet mix as a straightforward locustfile would have it.

The package's ClientSync, one dataclass a transfer, and locust's own event for each action.
"""

from __future__ import annotations

from locust import TaskSet, User, constant, events
from locust.runners import WorkerRunner

import sys
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

import tigerbeetle as tb  # noqa: E402

from loadtests.client.ledger import Ledger  # noqa: E402
from loadtests.client.records import CREATED, LINKED, join  # noqa: E402
from loadtests.run import runs  # noqa: E402
from loadtests.run.meter import Meter  # noqa: E402
from loadtests.wallet.bank import STATEMENT_LINES, Bank  # noqa: E402
from loadtests.wallet.users import WalletTasks  # noqa: E402
from loadtests.wallet.wallets import ASSETS, Choices, Pair, Population  # noqa: E402


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The cluster's addresses."""
    parser.add_argument("--addresses", required=True)
    parser.add_argument("--wallets", type=int, default=1000)


class PlainBank(Bank):
    """The actions of Bank, with the client as its documentation shows it."""

    def __init__(self, client: Any, environment: Any, opened: Bank) -> None:
        super().__init__(opened.ledger, opened.population, opened.choices, opened.meter)
        self._new_id = opened._new_id
        self.client, self.environment = client, environment

    def _transfer(  # type: ignore[override]
        self, asset: int, debit: Pair, credit: Pair, amount: int, code: int, **more: Any
    ) -> list[Any]:
        number = more.get("number") or self._new_id()
        return [
            tb.Transfer(
                id=self.population.tag << 64 | number,
                debit_account_id=join(debit),
                credit_account_id=join(credit),
                amount=amount,
                pending_id=join(more.get("pending", (0, 0))),
                user_data_128=join(more.get("chain", (0, 0))),
                user_data_64=self.population.tag,
                timeout=more.get("timeout_s", 0),
                ledger=ASSETS[asset].ledger,
                code=code,
                flags=tb.TransferFlags(more.get("flags", 0)),
            )
        ]

    def _chain(self, legs: list[Any]) -> Any:
        first, last = self._new_id(), len(legs) - 1
        chain = (first, self.population.tag)
        return [
            self._transfer(
                *leg, flags=LINKED if i < last else 0, chain=chain, number=0 if i else first
            )[0]
            for i, leg in enumerate(legs)
        ]

    def _post(self, action: str, events: Any, since: float) -> bool:
        results = self.client.create_transfers(events)
        self._fire(action, since)
        return all(result.status == CREATED for result in results)

    def balance(self, since: float) -> None:
        """Read one wallet's account."""
        account = join(self._wallet(self.choices.payer(), self.choices.asset()))
        self.client.lookup_accounts([account])
        self._fire("balance", since)

    def statement(self, since: float) -> None:
        """Read the latest transfers of one wallet's account."""
        flags = tb.AccountFilterFlags
        query = tb.AccountFilter(
            account_id=join(self._wallet(self.choices.payer(), self.choices.asset())),
            user_data_128=0,
            user_data_64=0,
            user_data_32=0,
            code=0,
            timestamp_min=0,
            timestamp_max=0,
            limit=STATEMENT_LINES,
            flags=flags.DEBITS | flags.CREDITS | flags.REVERSED,
        )
        self.client.get_account_transfers(query)
        self._fire("statement", since)

    def _fire(self, action: str, since: float) -> None:
        self.environment.events.request.fire(
            request_type="TB",
            name=action,
            response_time=(perf_counter() - since) * 1000,
            response_length=0,
            exception=None,
            context={},
        )


@events.test_start.add_listener
def start(environment: Any, **_kwargs: Any) -> None:
    """Make and fund the wallets as ours does, then hand over to ClientSync."""
    if isinstance(environment.runner, WorkerRunner):
        raise SystemExit("the reference runs in one process")
    options = environment.parsed_options
    population = Population(runs.new_tag(), 0, options.wallets)
    ledger = Ledger(0, options.addresses)
    ledger.connect()
    opened = Bank(ledger, population, Choices(population, skew=1.0, seed=1), Meter(0))
    opened.open()
    ledger.close()
    client = tb.ClientSync(0, options.addresses)
    environment.bank = PlainBank(client, environment, opened)


class PlainTasks(WalletTasks):
    """The same mix, with locust's own pause between tasks."""

    def on_start(self) -> None:
        """The bank was made by test_start."""
        self.bank, self._since = self.user.environment.bank, perf_counter

    def wait(self) -> None:
        """As locust has it, not as LedgerTasks does."""
        TaskSet.wait(self)


class PlainUser(User):
    """A wallet owner."""

    think_s = 0.0
    wait_time = constant(0)
    tasks: ClassVar = [PlainTasks]
