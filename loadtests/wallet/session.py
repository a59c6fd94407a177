"""One worker process's part of a run: its clients, wallets and measurements, from start to end."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import gevent
import psutil

from loadtests.client.ledger import Ledger
from loadtests.client.network import Network
from loadtests.client.records import TRANSFER, Array, overdrawn
from loadtests.run.arrivals import Arrivals
from loadtests.run.meter import Meter, Second
from loadtests.run.runs import Recorder
from loadtests.wallet.bank import Bank
from loadtests.wallet.wallets import Choices, Population

_LAG_PROBE_S = 0.05


@dataclass(frozen=True)
class Plan:
    """What a worker must know to take part. The master sends it as plain options."""

    run: Path
    tag: int
    worker: int
    cluster_id: int
    addresses: str
    wallets: int
    skew: float
    seed: int
    deadline_s: float
    batch_max: int
    open_loop: bool
    arrival_process: str
    population: int  # the tag of the run that has made the wallets: this one, or an earlier


class Session:
    """Connect and fund; measure while users act; then wait for what is in flight, and close."""

    def __init__(
        self, plan: Plan, *, on_second: Callable[[Second], None], users: Callable[[], int]
    ) -> None:
        """Raises BridgeError when the cluster does not answer or refuses, within seconds."""
        self.plan = plan
        self._on_second, self._users = on_second, users
        self.meter = Meter(plan.worker)
        self.ledger = Ledger(
            plan.cluster_id,
            plan.addresses,
            deadline_s=plan.deadline_s,
            batch_max=plan.batch_max,
            on_transfers=self._on_transfers,
            on_accounts=self._on_accounts,
        )
        self._greenlets: list[gevent.Greenlet] = []
        self._stopping = False
        self.arrivals: Arrivals | None = None
        try:
            self.ledger.connect()
            self.recorder = Recorder(plan.run, plan.worker)
            population = Population(plan.population, plan.worker, plan.wallets)
            choices = Choices(population, skew=plan.skew, seed=plan.seed)
            self.bank = Bank(self.ledger, population, choices, self.meter, plan.tag)
            if plan.population == plan.tag:
                self.recorder.accounts(population.accounts())
                self.bank.open()
            else:
                self.recorder.accounts(self.bank.take_over())
        except BaseException:
            self.ledger.close()
            raise
        self._start()

    def _start(self) -> None:
        self.meter.second(time.time(), cpu_percent=0.0, users=0)  # funding is not measured
        if self.plan.open_loop:
            self.arrivals = Arrivals(
                process="fixed" if self.plan.arrival_process == "fixed" else "poisson",
                drop_after_s=self.plan.deadline_s,
                on_drop=self._drop,
                seed=self.plan.seed + self.plan.worker,
            )
        # Objects made so far live until the end: keep the collector from walking them under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._network = Network()
        self._greenlets = [gevent.spawn(self._pump), gevent.spawn(self._probe_lag)]

    def since(self) -> float | None:
        """The instant from which the next action's latency counts; None when the run is over.

        Open loop: waits for it.
        """
        return self.arrivals.take() if self.arrivals else perf_counter()

    def stopping(self) -> None:
        """The users are about to be stopped: the measured window ends here. Idempotent."""
        if not self._stopping:
            if self.arrivals:
                self.arrivals.close()
            self._emit()
            self._stopping = self.bank.stopping = True

    def finish(self) -> dict[str, int]:
        """Wait for what is in flight, within the deadline; record it; close. The summary."""
        self.stopping()
        self.ledger.drain(self.plan.deadline_s)
        unanswered = self.ledger.unanswered
        if unanswered:
            self.recorder.add(unanswered, None)
        self._emit()
        gevent.killall(self._greenlets)
        self.ledger.close()
        self.recorder.close()
        gc.unfreeze()
        return {
            "worker": self.plan.worker,
            "sent": self.recorder.count,
            "unanswered": len(unanswered) // TRANSFER.itemsize,
        }

    def _on_transfers(self, events: bytes, results: Array | None, seconds: float) -> None:
        count = len(events) // TRANSFER.itemsize
        if results is not None and len(results) != count:
            results = None  # a reply of the wrong length: the outcome is unknown, for the audit
        self.recorder.add(events, results)
        self.meter.add_request(count, results, seconds)

    def _on_accounts(self, accounts: Array, _seconds: float) -> None:
        wrong = accounts[overdrawn(accounts)]
        for account in wrong:
            self.meter.add("balance", "error", perf_counter(), f"overdrawn: {account['id']}")

    def _drop(self, count: int) -> None:
        self.meter.drops += count

    def _emit(self) -> None:
        second = self.meter.second(
            time.time(),
            cpu_percent=self._process.cpu_percent(),
            network_percent=self._network.percent(),
            users=self._users(),
            tail=self._stopping,
        )
        self._on_second(second)

    def _pump(self) -> None:
        while True:
            gevent.sleep(1 - time.time() % 1)  # on whole seconds, so that workers align
            self._emit()

    def _probe_lag(self) -> None:
        while True:
            asked = perf_counter()
            gevent.sleep(_LAG_PROBE_S)
            self.meter.add_lag(max(0.0, perf_counter() - asked - _LAG_PROBE_S))
