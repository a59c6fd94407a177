"""A whole run, on the master (or in the only process): begin it, collect figures, write down."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import gevent
import psutil

from loadtests.run import runs
from loadtests.run.meter import Here, Second
from loadtests.run.result import (
    Fault,
    Figures,
    Machine,
    Manifest,
    Result,
    Settings,
    Target,
    reading,
)
from loadtests.run.series import Series, by_action, by_worker, figures
from loadtests.run.servers import Servers

#: Above this share of a core the generator, rather than the cluster, may be what is measured.
GENERATOR_CPU_LIMIT = 70.0
WORKER_STOP_TIMEOUT_S = 15.0


class Conductor:
    """One run from its manifest to its result."""

    def __init__(
        self, target: Target, settings: Settings, *, name: str = "", group: str = ""
    ) -> None:
        """Makes the run's directory and writes the manifest. Raises FileExistsError."""
        self.tag = runs.new_tag()
        self.path = runs.directory() / (name or runs.name_of(self.tag))
        self.series = Series()
        self.workers: dict[int, Here] = {}
        self.finished: dict[int, dict[str, int]] = {}
        self._servers = Servers(target.addresses)
        self._printer: gevent.Greenlet | None = None
        self.manifest = Manifest(
            run=self.path.name,
            tag=str(self.tag),
            started=time.time(),
            group=group,
            target=target,
            settings=settings,
            machine=machine(),
        )
        self.path.mkdir(parents=True, exist_ok=False)
        runs.write_json(self.path / "run.json", self.manifest.model_dump_json(indent=2))

    def start(self, *, progress: bool) -> None:
        """The workers are about to start; ``progress`` prints a line a second on stderr."""
        self._servers.start()
        if progress:
            self._printer = gevent.spawn(self._print_progress)

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        print(f"load: {text}", file=sys.stderr, flush=True)

    def server_pids(self) -> list[int]:
        """The processes of those replicas that run on this machine."""
        return self._servers.pids

    @property
    def is_elsewhere(self) -> bool:
        """This machine neither sends nor serves: what else it does disturbs nothing."""
        hosts = {here["host"] for here in self.workers.values()}
        return bool(hosts) and platform.node() not in hosts and not self._servers.pids

    @property
    def rtt_ms(self) -> float | None:
        """Of the load host that is farthest from the cluster; None where nobody asked."""
        known = [here["rtt_ms"] for here in self.workers.values() if here["rtt_ms"] is not None]
        return max(known, default=None)

    def wait_for_workers(self, workers: int, timeout_s: float) -> bool:
        """Wait until every worker has handed in its summary; False if the time ran out."""
        until = time.monotonic() + timeout_s
        while len(self.finished) < workers and time.monotonic() < until:
            gevent.sleep(0.05)
        return len(self.finished) >= workers

    def finish(self, workers: int) -> Result:
        """Write result.json from what has come in."""
        self._servers.stop()
        if self._printer:
            self._printer.kill()
        missing = [worker for worker in range(workers) if worker not in self.finished]
        notes = [
            f"worker {worker}{self._place(worker)}: its last figures and its record did not arrive"
            for worker in missing
        ]
        window, seconds = self._window(notes)
        self._note_generator(window, notes)
        sums = [self.finished[worker] for worker in sorted(self.finished)]
        result = Result(
            manifest=self.manifest,
            ended=time.time(),
            complete=not missing,
            workers=workers,
            transfers_sent=sum(s["sent"] for s in sums),
            transfers_acknowledged=self.series.transfers,
            actions_per_s=window.actions_per_s,
            unanswered=sum(s["unanswered"] for s in sums),
            window=window,
            actions=by_action(seconds, window.duration_s),
            by_worker=by_worker(seconds, window.duration_s, self.workers, missing),
            series=self.series.points(),
            servers=self._servers.points,
            faults=sorted(
                [*self._servers.faults, *read_faults(self.path), *self._lost(missing)],
                key=lambda fault: fault.at,
            ),
            notes=notes,
        )
        runs.write_json(self.path / "result.json", result.model_dump_json(indent=1))
        return result

    def _place(self, worker: int) -> str:
        return f" on {self.workers[worker]['host']}" if worker in self.workers else ""

    def _lost(self, missing: list[int]) -> list[Fault]:
        """When those that are missing were heard of last: the others went on without them."""
        last = {second["worker"]: second["at"] for second in self.series.seconds}
        return [
            Fault(at=last[worker], what=f"worker {worker}{self._place(worker)} is heard of no more")
            for worker in missing
            if worker in last
        ]

    def _window(self, notes: list[str]) -> tuple[Figures, list[Second]]:
        """The measured window, and the seconds in it."""
        seconds = [second for second in self.series.seconds if not second["tail"]]
        if not seconds:
            notes.append("nothing was measured: no worker ran for as much as a second")
            return figures([], 0.0), []
        begin = min(second["at"] for second in seconds) - 1.0
        warm_at = begin + self.manifest.settings.warmup_s
        warm = [second for second in seconds if second["at"] > warm_at]
        if not warm:
            notes.append("the run was shorter than its warm-up: the figures include the warm-up")
            warm, warm_at = seconds, begin
        # Seconds end on whole seconds: the window begins where its first second began.
        cold = [second["at"] for second in seconds if second["at"] <= warm_at]
        opened = max(cold, default=begin)
        return figures(warm, max(s["at"] for s in warm) - opened), warm

    def _note_generator(self, window: Figures, notes: list[str]) -> None:
        if window.generator_cpu_percent > GENERATOR_CPU_LIMIT:
            notes.append(
                f"a load process used {window.generator_cpu_percent:.0f} % of a core: above "
                f"{GENERATOR_CPU_LIMIT:.0f} % the generator, not the cluster, is being measured"
            )
        if self.manifest.target.engine == "emulator":
            notes.append("the emulator's throughput and latency say nothing about TigerBeetle's")

    def _print_progress(self) -> None:
        while True:
            gevent.sleep(1.02 - time.time() % 1)  # just after the workers' seconds have come in
            try:
                self.say(self.progress())
            except BrokenPipeError:  # who has started this is gone: nobody would audit it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
                os.kill(os.getpid(), signal.SIGINT)
                return

    def progress(self) -> str:
        """One line about the latest second."""
        point = self.series.latest()
        if point is None:
            return "waiting for the first second"
        elapsed = point.at - self.manifest.started
        p99 = f"{point.p99_ms:.1f} ms" if point.p99_ms is not None else "-"
        wrong = point.unknown + point.error
        return (
            f"{elapsed:5.0f} s  {point.users:,} users  {point.ok + point.rejected:,} actions/s  "
            f"{point.transfers:,} transfers/s  p99 {p99}"
            + (f"  {wrong:,} unknown or failed" if wrong else "")
            + (f"  {point.drops:,} dropped" if point.drops else "")
        )


def read_faults(run: Path) -> list[Fault]:
    """The faults that other programs noted in faults.jsonl."""
    path = run / "faults.jsonl"
    if not path.is_file():
        return []
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Fault.model_validate(json.loads(line)) for line in lines if line.strip()]


def machine() -> Machine:
    """This machine, for the record."""
    return Machine(
        host=platform.node(),
        cpus=os.cpu_count() or 1,
        cpu_model=_cpu_model(),
        memory_gib=round(psutil.virtual_memory().total / 1024**3, 1),
        system=f"{platform.system()} {platform.release()}",
        python=sys.version.split()[0],
        client_release=version("tigerbeetle"),
        locust=version("locust"),
    )


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    lines = (line.partition(":") for line in text.splitlines() if line.startswith("model name"))
    return next((model.strip() for _, _, model in lines), platform.processor())
