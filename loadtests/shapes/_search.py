"""The capacity search as a locust shape: sets the rate, judges windows, stops when it knows."""

from __future__ import annotations

from locust import LoadTestShape

import os
import time

from loadtests import limits, others
from loadtests.report.curve import CAPACITY, Capacity, SearchWindow
from loadtests.run import runs
from loadtests.run.conductor import Conductor
from loadtests.run.series import figures
from loadtests.run.shaping import set_rate
from loadtests.search import Search, judge

#: Wait this long after a change of rate, so that a window begins in the rate's own state.
SETTLE_S = 2.0
#: The window of a probe: it need not be exact, but it must not take long.
PROBE_S, PROBE_SETTLE_S = 2.0, 1.0
#: What an overload has left behind must be gone before the next window; it is, after the deadline.
EMPTY_MAX_S = 15.0


class CapacitySearch(LoadTestShape):
    """One window after another, each a few seconds, at the rate the search proposes."""

    use_common_options = True

    def __init__(self) -> None:
        super().__init__()
        self.search: Search | None = None
        self.found = Capacity(p99_ms=0.0)
        self._opened = self._emptied = 0.0
        self._before = others.Usage({}, {})

    def __str__(self) -> str:
        return type(self).__name__

    def tick(self) -> tuple[int, float] | None:
        """Called by locust once a second."""
        options = self.runner.environment.parsed_options
        users = (options.num_users, max(1.0, options.num_users / 2))
        conductor = getattr(self.runner.environment, "conductor", None)
        if conductor is None or not conductor.series.seconds:
            return users  # the workers are still connecting
        if self.search is None:
            self.search = Search(rate=options.rate)
            self.found.p99_ms = options.capacity_p99_ms
            self._open(self.search)
        elif self._emptied:
            if self._is_empty(conductor):
                self._open(self.search)
        elif time.time() - self._opened > sum(self._times(self.search)):
            self._judge(self.search, conductor)
        else:
            set_rate(self.runner, self.search.rate)
        return None if self.search.done else users

    def _times(self, search: Search) -> tuple[float, float]:
        """Seconds of settling, and of the window."""
        if search.is_probing:
            return PROBE_SETTLE_S, PROBE_S
        return SETTLE_S, self.runner.environment.parsed_options.capacity_window_s

    def _open(self, search: Search) -> None:
        self._before = others.read()
        self._emptied = 0.0
        set_rate(self.runner, search.rate)
        self._opened = time.time()

    def _empty(self) -> None:
        """Let what waits be answered: the next window would pay for it."""
        set_rate(self.runner, 0.0)
        self._emptied = time.time()

    def _is_empty(self, conductor: Conductor) -> bool:
        if time.time() - self._emptied > EMPTY_MAX_S:
            return True
        point = conductor.series.latest()
        if point is None or point.at < self._emptied + 1:
            return False
        return not (point.ok or point.rejected or point.unknown or point.error or point.drops)

    def _judge(self, search: Search, conductor: Conductor) -> None:
        settle_s, _ = self._times(search)
        seconds = [s for s in conductor.series.seconds if s["at"] > self._opened + settle_s]
        workers = max(1, conductor.manifest.settings.processes)
        found = figures(seconds, max(1.0, len(seconds) / workers))
        ours = [os.getpid(), *conductor.server_pids()]
        used = others.between(self._before, others.read(), ours)
        if conductor.is_elsewhere:
            used = others.Others(0.0)
        window = SearchWindow(
            rate=search.rate,
            is_probe=search.is_probing,
            verdict=judge(
                found, rate=search.rate, p99_ms=self.found.p99_ms, others_percent=used.percent
            ),
            actions_per_s=found.actions_per_s,
            p50_ms=found.latency.p50_ms,
            p99_ms=found.latency.p99_ms,
            drops=found.drops,
            unknown=found.unknown + found.error,
            transfers_per_request=found.transfers_per_request,
            generator_cpu_percent=found.generator_cpu_percent,
            others_percent=used.percent,
            others=list(used.who),
        )
        conductor.say(f"capacity: {line(window)}")
        search.feed(window.verdict)
        self.found.windows.append(window)
        self.found.knee = search.knee
        if search.is_disturbed:
            self.found.verdict = "disturbed"
        elif search.done:
            self.found.verdict = "none" if search.knee is None else "found"
        if window.verdict == "bad":
            self.found.note = limits.WORDS[limits.limit(found, conductor.rtt_ms)]
        runs.write_json(conductor.path / CAPACITY, self.found.model_dump_json(indent=1))
        if window.verdict == "good":
            self._open(search)
        else:
            self._empty()


def line(window: SearchWindow) -> str:
    """One window, for whoever watches."""
    who = f" ({', '.join(window.others)})" if window.verdict == "void" and window.others else ""
    return (
        f"{'probe, ' if window.is_probe else ''}{window.rate:,.0f} actions/s: {window.verdict} "
        f"(reached {window.actions_per_s:,.0f}, p99 {window.p99_ms or 0:.1f} ms, "
        f"{window.drops:,} dropped, generator {window.generator_cpu_percent:.0f} % CPU, "
        f"others {window.others_percent:.0f} % of the machine{who})"
    )
