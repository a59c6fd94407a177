"""The capacity search as a locust shape: sets the rate, judges windows, stops when it knows."""

from __future__ import annotations

from locust import LoadTestShape

import json
import time

import psutil

from loadtests import limits
from loadtests.run import runs
from loadtests.run.conductor import Conductor
from loadtests.run.series import figures
from loadtests.run.shaping import set_rate
from loadtests.search import Search, Window

#: Wait this long after a change of rate, so that queues fill or empty before a window begins.
SETTLE_S = 2.0
#: A window counts if it reached this share of its rate: Poisson arrivals vary.
REACHED = 0.93
#: Above this share of the machine used by others, or stolen from it, a window is void.
FOREIGN_PERCENT = 20.0


class CapacitySearch(LoadTestShape):
    """One window after another, each a few seconds, at the rate the search proposes."""

    use_common_options = True

    def __init__(self) -> None:
        super().__init__()
        self.search: Search | None = None
        self.note = ""
        self._opened = 0.0
        self._others = Others()

    def tick(self) -> tuple[int, float] | None:
        """Called by locust once a second."""
        options = self.runner.environment.parsed_options
        users = (options.num_users, max(1.0, options.num_users / 2))
        conductor = getattr(self.runner.environment, "conductor", None)
        if conductor is None or not conductor.series.seconds:
            return users  # the workers are still connecting
        if self.search is None:
            self.search = Search(rate=options.rate)
            self._open(self.search)
        elif time.time() - self._opened > SETTLE_S + options.capacity_window_s:
            self._judge(self.search, conductor, options.capacity_window_s, options.capacity_p99_ms)
            self._open(self.search)
        else:
            set_rate(self.runner, self.search.rate)
        return None if self.search.done else users

    def _open(self, search: Search) -> None:
        set_rate(self.runner, search.rate)
        self._opened = time.time()
        self._others.start()

    def _judge(self, search: Search, conductor: Conductor, window_s: float, p99_ms: float) -> None:
        seconds = [s for s in conductor.series.seconds if s["at"] > self._opened + SETTLE_S]
        workers = max(1, conductor.manifest.settings.processes)
        found = figures(seconds, max(1.0, len(seconds) / workers))
        p99 = found.latency.p99_ms
        foreign = self._others.percent(found.generator_cpu_percent, conductor.server_cpu_percent())
        good = (
            p99 is not None
            and p99 <= p99_ms
            and not found.drops
            and not found.unknown + found.error
            and found.actions_per_s >= REACHED * search.rate
        )
        # A good window counts on a busy machine too; a bad one may not be the cluster's fault.
        window: Window = "good" if good else "void" if foreign > FOREIGN_PERCENT else "bad"
        conductor.say(
            f"capacity: {search.rate:,.0f} actions/s: {window} "
            f"(reached {found.actions_per_s:,.0f}, p99 {p99 or 0:.1f} ms, "
            f"{found.drops:,} dropped, generator "
            f"{found.generator_cpu_percent:.0f} % CPU, others {foreign:.0f} % of the machine)"
        )
        if window == "bad":
            self.note = limits.WORDS[limits.limit(found, conductor.rtt_ms)]
        search.feed(window)
        content = {"knee": search.knee, "history": search.history, "note": self.note}
        runs.write_json(conductor.path / "capacity.json", json.dumps(content))


class Others:
    """How much of this machine is used by programs other than the generator and the replicas."""

    def start(self) -> None:
        """A window begins."""
        self._before = psutil.cpu_times()

    def percent(self, generator: float, servers: float) -> float:
        """Of all cores, over the window; arguments in per cent of one core."""
        after = psutil.cpu_times()
        spent = {name: b - a for name, a, b in zip(after._fields, self._before, after, strict=True)}
        total = sum(spent.values()) or 1.0
        idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
        ours = (generator + servers) / (psutil.cpu_count() or 1)
        return max(0.0, 100 * (total - idle) / total - ours)
