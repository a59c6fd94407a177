"""The users that load the ledger: wallet owners, a settlement run, readers.

A task is one wallet action. The statistics are kept by the session's meter and handed to locust in
bulk, because firing an event for each action costs as much as the action.
"""

from __future__ import annotations

from locust import TaskSet, User, constant
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_STOPPING

import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gevent

from loadtests.client.bridge import BridgeError
from loadtests.run.exit_codes import EXIT_USAGE
from loadtests.traffic import mix
from loadtests.wallet.bank import Bank
from loadtests.wallet.session import Session


def give_up(environment: Any, error: Exception) -> None:
    """Say why, once, and end the run in order."""
    if getattr(environment, "gave_up", False):
        return
    environment.gave_up = True
    environment.process_exit_code = EXIT_USAGE
    print(f"error: {error}", file=sys.stderr, flush=True)
    gevent.spawn_later(0, environment.runner.quit)


class LedgerTasks(TaskSet):
    """Tasks are actions of the worker's bank. Without think time they go on without a pause."""

    def on_start(self) -> None:
        """Keep what every task needs. Raises StopUser where there is no session (any more)."""
        session: Session | None = getattr(self.user.environment, "session", None)
        if session is None:
            raise StopUser
        self.bank, self._since = session.bank, session.since

    def execute_task(self, task: Callable[[Bank, float], None]) -> None:
        """Perform an action, its latency counted from when it is due. Raises StopUser at the end.

        A client that cannot serve any more ends the run: trying again would fail again.
        """
        instant = self._since()
        if instant is None:
            raise StopUser
        try:
            getattr(self.bank, task.__name__)(instant)
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

    tasks: ClassVar[Any] = {getattr(Bank, name): weight for name, weight in mix.USUAL.items()}

    @classmethod
    def take(cls, weights: Mapping[str, int]) -> None:
        """Act in these proportions from now on."""
        cls.tasks = [getattr(Bank, name) for name in weights for _ in range(weights[name])]


class WalletUser(LedgerUser):
    """A wallet owner: one action at a time, the next when the last is done."""

    tasks: ClassVar = [WalletTasks]


class SettlementTasks(LedgerTasks):
    """Throughput: batches as full as the protocol allows."""

    tasks: ClassVar = [Bank.settle]


class SettlementUser(LedgerUser):
    """A settlement process. Two are enough: one batch on the wire, one ready."""

    tasks: ClassVar = [SettlementTasks]


class ReaderTasks(LedgerTasks):
    """Reads alone."""

    tasks: ClassVar = {Bank.balance: 4, Bank.statement: 1}


class ReaderUser(LedgerUser):
    """A user who only reads."""

    tasks: ClassVar = [ReaderTasks]
