"""``make load``: load, audit, report, gate and one short table."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.config import inventory
from cluster.refusal import Refusal
from loadtests.client import preflight
from loadtests.client.ledger import CLIENTS_PER_LEDGER
from loadtests.hosts.crew import Crew, muster
from loadtests.options import of_scenario, seconds, variable
from loadtests.proof.audit import CONNECT_TIMEOUT_S, audit
from loadtests.report import gate, report
from loadtests.run import runs, target
from loadtests.run.exit_codes import EXIT_FAILED, EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN, EXIT_USAGE
from loadtests.run.result import Audit, Result, Target, read_result
from loadtests.traffic import profile

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
SHAPES = Path(__file__).parent / "shapes"
#: Lines of ours, and those in which locust's own command line refuses.
_FOR_PEOPLE = re.compile(r"load: |error: |Did you mean |[\w. -]+: error: ")
#: What a run may take beyond its duration: start, wallets (30,000: 2 minutes when busy), closing.
OVERHEAD_S = 1800
USERS, POOL, RUN_S = 50, 1000, 20
#: The shape of a capacity search: one run of many windows.
SEARCH = "_search"


@dataclass(frozen=True)
class Wanted:
    """What a run is to be; what else there is goes to locust as it was given."""

    users: int
    run_time: int
    shape: str | None = None
    gate: gate.Gate | None = None
    audit_timeout_s: float = CONNECT_TIMEOUT_S


@dataclass(frozen=True)
class Outcome:
    """One run, finished and audited."""

    path: Path
    result: Result | None
    audit: Audit
    findings: list[gate.Finding]

    @property
    def exit_code(self) -> int:
        """Audit and gate in one number."""
        return gate.exit_code(self.audit, self.findings)


def run_once(wanted: Wanted, extra: list[str], name: str, group: str) -> Outcome | int:
    """Load and audit once; locust's exit code if it did not come to a run."""
    path = runs.directory() / name
    found = _target(extra)
    crew, rest = _crew(found, extra)
    own = ["--reach", target.way(found), "--run-id", name, "--group", group]
    if crew is None:
        code = load(wanted, [*extra, *own])
    else:
        lasts_s, has_windows = wanted.run_time + OVERHEAD_S, wanted.shape == SEARCH
        with crew.at_work(path, lasts_s, brings_meanwhile=has_windows) as master:
            code = load(wanted, [*rest, *own, *master])
    if not (path / "run.json").is_file():
        return EXIT_USAGE if crew else code or EXIT_USAGE
    done = audit(path, connect_timeout_s=wanted.audit_timeout_s)
    result = read_result(path)
    findings = gate.judge(wanted.gate, result) if wanted.gate and result else []
    if wanted.gate:
        gate.write_findings(path, findings)
    report.write(path)
    return Outcome(path, result, done, findings)


def _target(extra: list[str]) -> Target:
    """The cluster that locust will load: found here, where the audit follows. Raises Refusal."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # of locust's options
    for name in ("addresses", "cluster-id", "engine"):
        variable = "LOADTESTS_" + name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=os.environ.get(variable))
    named = parser.parse_known_args(extra)[0]
    return target.resolve(**vars(named))


def _crew(found: Target, extra: list[str]) -> tuple[Crew | None, list[str]]:
    """The load hosts of the cluster's inventory, and what else is locust's; None without any.

    ``--processes`` then counts the workers on each of them. Raises Refusal.
    """
    deployment = inventory.read(found.inventory) if found.inventory else None
    if deployment is None or not deployment.load_hosts:
        return None, extra
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=os.environ.get("LOCUST_PROCESSES", 1))
    named, rest = parser.parse_known_args(extra)
    if named.processes < 1:
        wanted, fix = "1 or more workers on each load host", "correct PROCESSES="
        raise Refusal("--processes", expected=wanted, found=named.processes, fix=fix)
    workers = named.processes * len(deployment.load_hosts)
    preflight.check_sessions(workers, clients_per_worker=CLIENTS_PER_LEDGER)
    return muster(deployment, named.processes), rest


def load(wanted: Wanted, extra: list[str]) -> int:
    """Run locust without a window, its log in a file, its progress on stderr; its exit code."""
    log = runs.directory() / "locust.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    files = [str(LOCUSTFILE)] + [str(SHAPES / f"{wanted.shape}.py")] * bool(wanted.shape)
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", ",".join(files), "--headless"),
        *("--users", str(wanted.users), "--run-time", f"{wanted.run_time}s"),
        *("--only-summary", "--progress", "--exit-code-on-error", "0"),
        *("--logfile", str(log), *extra),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    # Ctrl-C reaches locust by itself, which then ends the run in order; wait for it here.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    watchdog = threading.Timer(wanted.run_time + OVERHEAD_S, process.kill)
    watchdog.start()
    try:
        for line in process.stderr or ():
            if _FOR_PEOPLE.match(line):
                print(line, end="", file=sys.stderr, flush=True)
        return process.wait()
    finally:
        watchdog.cancel()
        signal.signal(signal.SIGINT, before)
        if process.poll() is None:
            process.kill()


def summary(outcomes: list[Outcome]) -> Table:
    """What a person wants to know; several runs as mean and variation."""
    first = outcomes[0]
    results = [outcome.result for outcome in outcomes if outcome.result]
    table = Table(title="load", show_header=False)
    rows: dict[str, str] = {}
    if results:
        windows = [result.window for result in results]
        target = results[0].manifest.target
        rows["engine"], rows["cluster"] = target.label, target.whose
        rows["actions"] = f"{sum(w.actions for w in windows):,}"
        acknowledged = sum(result.transfers_acknowledged for result in results)
        rows["transfers acknowledged"] = f"{acknowledged:,}"
        rows["throughput"] = (
            f"{_spread([w.actions_per_s for w in windows])} actions/s, "
            f"{_spread([w.transfers_per_s for w in windows])} transfers/s"
        )
        rows["p50"] = _spread([w.latency.p50_ms or 0.0 for w in windows]) + " ms"
        rows["p99"] = _spread([w.latency.p99_ms or 0.0 for w in windows]) + " ms"
        slowest = [w.composition.slowest for w in windows if w.composition]
        if slowest:
            parts = {
                "until a user was free": [one.no_user_ms for one in slowest],
                "waiting for the packet in flight": [one.waiting_ms for one in slowest],
                "their packet": [one.packet_ms for one in slowest],
                "the generator": [one.generator_ms for one in slowest],
            }
            told = (f"{_spread(ms)} ms {part}" for part, ms in parts.items() if any(ms))
            rows["the slowest 1 %"] = ", ".join(told)
        rows["unknown or failed"] = f"{sum(w.unknown + w.error for w in windows):,}"
        if results[0].manifest.settings.mode == "open":
            rows["dropped"] = f"{sum(w.drops for w in windows):,}"
        for note in dict.fromkeys(note for result in results for note in result.notes):
            rows.setdefault("note", note)
    rows["audit"] = ", ".join(outcome.audit.verdict for outcome in outcomes)
    rows["report"] = os.path.relpath(first.path / "report.html") + (
        f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    )
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def show(outcomes: list[Outcome]) -> None:
    """Print the summary, what the audit found wrong, and the gate's findings."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(summary(outcomes))
    for outcome in outcomes:
        for check in outcome.audit.checks:
            if check.verdict != "passed":
                console.print(f"  {check.verdict} {check.name}: {check.detail}")
        for finding in outcome.findings:
            console.print(gate.line(finding))


def _spread(values: list[float]) -> str:
    mean = fmean(values)
    text = f"{mean:,.0f}" if mean >= 100 else f"{mean:.2f}"
    return text if len(values) < 2 else f"{text} (CV {100 * stdev(values) / (mean or 1):.0f} %)"


def settled(
    scenario: str, given: Mapping[str, Any], extra: Sequence[str]
) -> tuple[int, int, list[str]]:
    """How many users, how many seconds, and what is locust's: what is given, else the scenario's.

    An open loop draws its users from a pool. ``given`` has None for what is not. Raises Refusal.
    """
    known = of_scenario(scenario) | {
        name: value for name, value in given.items() if value is not None
    }
    name = known.get("arrival_profile")
    is_open = known.get("rate") or (profile.read(name).rate if name else None)
    named = ("--scenario", scenario), ("--rate", given["rate"]), ("--arrival-profile", name)
    ours = [word for option, value in named if value not in (None, "") for word in (option, value)]
    users = known.get("num_users", POOL if is_open else USERS)
    return users, known.get("run_time", RUN_S), [*extra, *map(str, ours)]


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--scenario",
    envvar=variable("scenario"),
    default="",
    help="Defaults of what follows, and more: see load-scenarios.",
)
@click.option("--users", type=int, help="Default: 50; in an open loop a pool of 1000.")
@click.option("--rate", type=float, help="Open loop: intended actions/s at the peak.")
@click.option("--run-time", type=seconds, help="Users act so long: 20 (the default), 20s, 5m.")
@click.option("--runs", "count", default=1, help="Repeat, and show the variation.")
@click.option(
    "--arrival-profile",
    "--shape",
    "curve",
    envvar=variable("arrival-profile"),
    help="How rate or users change: a name of load-scenarios, or a file. Default: steady.",
)
@click.option("--gate", "file", type=Path, help="Thresholds, such as loadtests/gate.toml.")
@click.option(
    "--audit-timeout-s",
    default=CONNECT_TIMEOUT_S,
    help="How long the audit waits for a cluster that is away.",
)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def main(
    scenario: str,
    users: int | None,
    rate: float | None,
    run_time: int | None,
    count: int,
    curve: str | None,
    file: Path | None,
    audit_timeout_s: float,
    extra: tuple[str, ...],
) -> int:
    """Load the cluster with wallets, audit it, report.

    Whatever else is given goes to locust (see locust -f loadtests/locustfile.py --help).

    Exit codes: 0 passed, 1 audit failed, 2 usage, 3 threshold missed, 4 unknown.
    """
    given = {"num_users": users, "rate": rate, "run_time": run_time, "arrival_profile": curve}
    pool, run_s, more = settled(scenario, given, extra)
    for name, value in (("--users", pool), ("--runs", count)):
        if value < 1:
            raise click.UsageError(f"{name}: expected 1 or more, found {value}")
    if run_s < 1:
        raise click.UsageError(f"--run-time: expected 1 second or more, found {run_s}")
    thresholds = gate.read(file) if file else None
    wanted = Wanted(pool, run_s, None, thresholds, audit_timeout_s)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning")
    group = runs.name_of(runs.new_tag()) if count > 1 else ""
    outcomes: list[Outcome] = []
    for _ in range(count):
        outcome = run_once(wanted, more, runs.name_of(runs.new_tag()), group)
        if isinstance(outcome, int):
            return outcome
        outcomes.append(outcome)
    show(outcomes)
    codes = [outcome.exit_code for outcome in outcomes]
    order = (EXIT_FAILED, EXIT_UNKNOWN, EXIT_MISSED)
    return next((code for code in order if code in codes), EXIT_PASSED)
