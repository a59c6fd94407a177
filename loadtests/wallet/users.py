"""The users that load the ledger: wallet owners, a settlement run, readers.

A task is one wallet action. The statistics are kept by the session's meter and handed to locust in
bulk, because firing an event for each action costs as much as the action.
"""

from __future__ import annotations

from locust import TaskSet, User, constant, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import gevent

from loadtests.client.bridge import BridgeError
from loadtests.run.exit_codes import EXIT_USAGE
from loadtests.wallet.session import Session


def give_up(environment: Any, error: BridgeError) -> None:
    """Say why, once, and end the run in order."""
    if getattr(environment, "gave_up", False):
        return
    environment.gave_up = True
    environment.process_exit_code = EXIT_USAGE
    print(f"error: {error}", file=sys.stderr, flush=True)
    gevent.spawn_later(0, environment.runner.quit)


class LedgerTasks(TaskSet):
    """Tasks against the worker's session. Without think time they go on without a pause."""

    def session(self) -> Session:
        """This process's session. Raises StopUser where there is none (any more)."""
        session: Session | None = getattr(self.user.environment, "session", None)
        if session is None:
            raise StopUser
        return session

    def on_start(self) -> None:
        """Keep what every task needs."""
        session = self.session()
        self.bank, self._since = session.bank, session.since

    def since(self) -> float:
        """From when the next action's latency counts. Raises StopUser when all is over."""
        instant = self._since()
        if instant is None:
            raise StopUser
        return instant

    def execute_task(self, task: Callable[[TaskSet], None]) -> None:
        """A client that cannot serve any more ends the run: trying again would fail again."""
        try:
            super().execute_task(task)
        except BridgeError as error:
            give_up(self.user.environment, error)
            raise StopUser from None

    def wait(self) -> None:
        """Skip locust's sleep(0) between tasks: an action has waited for the cluster already."""
        if self.user.think_s:
            super().wait()
        elif self.user._state == LOCUST_STATE_STOPPING:
            raise StopUser


class LedgerUser(User):
    """Base of all users here. ``think_s`` is set from --think-s before the first user starts."""

    abstract = True
    think_s = 0.0
    wait_time = constant(0)


class WalletTasks(LedgerTasks):
    """The interactive mix: the actions of wallet owners, in their usual proportions."""

    @task(40)
    def pay(self) -> None:
        """To another wallet."""
        self.bank.pay(self.since())

    @task(10)
    def deposit(self) -> None:
        """From outside."""
        self.bank.deposit(self.since())

    @task(10)
    def withdraw(self) -> None:
        """To outside, with a fee."""
        self.bank.withdraw(self.since())

    @task(8)
    def hold_and_capture(self) -> None:
        """A purchase that goes through."""
        self.bank.hold_and_capture(self.since())

    @task(2)
    def hold_and_void(self) -> None:
        """A purchase that is called off."""
        self.bank.hold_and_void(self.since())

    @task(1)
    def hold_and_forget(self) -> None:
        """A purchase nobody finishes: the hold times out."""
        self.bank.hold_and_forget(self.since())

    @task(5)
    def exchange(self) -> None:
        """One asset for another."""
        self.bank.exchange(self.since())

    @task(19)
    def balance(self) -> None:
        """Read one balance."""
        self.bank.balance(self.since())

    @task(5)
    def statement(self) -> None:
        """What happened lately."""
        self.bank.statement(self.since())


class WalletUser(LedgerUser):
    """A wallet owner: one action at a time, the next when the last is done."""

    tasks: ClassVar = [WalletTasks]


class SettlementTasks(LedgerTasks):
    """Throughput: batches as full as the protocol allows."""

    @task
    def settle(self) -> None:
        """8189 payments in one request."""
        self.bank.settle(self.since())


class SettlementUser(LedgerUser):
    """A settlement process. Two are enough: one batch on the wire, one ready."""

    tasks: ClassVar = [SettlementTasks]


class ReaderTasks(LedgerTasks):
    """Reads alone."""

    @task(4)
    def balance(self) -> None:
        """How much is there."""
        self.bank.balance(self.since())

    @task(1)
    def statement(self) -> None:
        """What happened lately."""
        self.bank.statement(self.since())


class ReaderUser(LedgerUser):
    """A user who only reads."""

    tasks: ClassVar = [ReaderTasks]
