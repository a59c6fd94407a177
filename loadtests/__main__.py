"""Load, audit, report, gate and one short table: ``python -m loadtests --users 50 --run-time 20s``.

Whatever else is given goes to locust (see ``locust -f loadtests/locustfile.py --help``). Exit codes
as in ``loadtests.report.gate``: 0 passed, 1 audit failed, 2 usage, 3 threshold missed, 4 unknown.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console
from rich.table import Table

from cluster.refusal import Refusal
from loadtests.options import seconds
from loadtests.proof.audit import CONNECT_TIMEOUT_S, audit
from loadtests.report import gate, report
from loadtests.run import runs, target
from loadtests.run.exit_codes import EXIT_FAILED, EXIT_MISSED, EXIT_PASSED, EXIT_UNKNOWN, EXIT_USAGE
from loadtests.run.result import Audit, Result, read_result

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
SHAPES = Path(__file__).parent / "shapes"
#: What a run may take beyond its duration: start, funding, the last answers, closing.
OVERHEAD_S = 120
USERS, POOL = 50, 1000


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


def run_once(options: argparse.Namespace, extra: list[str], name: str, group: str) -> Outcome | int:
    """Load and audit once; locust's exit code if it did not come to a run."""
    path = runs.directory() / name
    try:
        reach = ["--reach", _way(extra)]
    except (Refusal, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    code = load(options, [*extra, *reach, "--run-id", name, "--group", group])
    if not (path / "run.json").is_file():
        return code or EXIT_USAGE
    done = audit(path, connect_timeout_s=options.audit_timeout_s)
    result = read_result(path)
    findings = gate.judge(options.gate, result) if options.gate and result else []
    if options.gate:
        gate.write_findings(path, findings)
    report.write(path)
    return Outcome(path, result, done, findings)


def _way(extra: list[str]) -> str:
    """The way to the cluster that locust will load: opened here, where the audit follows."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("addresses", "cluster-id", "engine"):
        variable = "LOADTESTS_" + name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=os.environ.get(variable))
    named = parser.parse_known_args(extra)[0]
    return target.way(target.resolve(**vars(named)))


def load(options: argparse.Namespace, extra: list[str]) -> int:
    """Run locust without a window, its log in a file, its progress on stderr; its exit code."""
    log = runs.directory() / "locust.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    files = [str(LOCUSTFILE)] + [str(SHAPES / f"{options.shape}.py")] * bool(options.shape)
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", ",".join(files), "--headless"),
        *("--users", str(options.users), "--run-time", f"{options.run_time}s"),
        *("--only-summary", "--progress", "--exit-code-on-error", "0"),
        *("--logfile", str(log), *extra),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    # Ctrl-C reaches locust by itself, which then ends the run in order; wait for it here.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    watchdog = threading.Timer(options.run_time + OVERHEAD_S, process.kill)
    watchdog.start()
    try:
        for line in process.stderr or ():
            if line.startswith(("load: ", "error: ")):
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
        rows["engine"] = results[0].manifest.target.label
        rows["actions"] = f"{sum(w.actions for w in windows):,}"
        acknowledged = sum(result.transfers_acknowledged for result in results)
        rows["transfers acknowledged"] = f"{acknowledged:,}"
        rows["throughput"] = (
            f"{_spread([w.actions_per_s for w in windows])} actions/s, "
            f"{_spread([w.transfers_per_s for w in windows])} transfers/s"
        )
        rows["p50"] = _spread([w.latency.p50_ms or 0.0 for w in windows]) + " ms"
        rows["p99"] = _spread([w.latency.p99_ms or 0.0 for w in windows]) + " ms"
        rows["unknown or failed"] = f"{sum(w.unknown + w.error for w in windows):,}"
        if results[0].manifest.settings.mode == "open":
            rows["dropped"] = f"{sum(w.drops for w in windows):,}"
        for note in dict.fromkeys(note for result in results for note in result.notes):
            rows.setdefault("note", note)
    rows["audit"] = ", ".join(outcome.audit.verdict for outcome in outcomes)
    rows["report"] = _short(first.path / "report.html") + (
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


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and what is locust's."""
    shapes = sorted(path.stem for path in SHAPES.glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("--users", type=int, help="default: 50; with --rate a pool of 1000")
    parser.add_argument("--rate", type=float, help="open loop: intended actions/s at the peak")
    parser.add_argument(
        "--run-time", type=seconds, default=20, help="how long the users act: 20, 20s, 5m"
    )
    parser.add_argument("--runs", type=int, default=1, help="repeat, and show the variation")
    parser.add_argument("--shape", choices=shapes, help="default: steady")
    parser.add_argument("--gate", type=Path, help="thresholds, such as loadtests/gate.toml")
    parser.add_argument(
        "--audit-timeout-s",
        type=float,
        default=CONNECT_TIMEOUT_S,
        help="how long the audit waits for a cluster that is away",
    )
    options, extra = parser.parse_known_args(arguments)
    if options.rate is not None:
        extra += ["--rate", str(options.rate)]
    if options.users is None:
        options.users = USERS if options.rate is None else POOL
    for name, value in (("--users", options.users), ("--runs", options.runs)):
        if value < 1:
            parser.error(f"{name}: expected 1 or more, found {value}")
    if options.run_time < 1:
        parser.error(f"--run-time: expected 1 second or more, found {options.run_time}")
    try:
        options.gate = gate.read(options.gate) if options.gate else None
    except ValueError as error:
        parser.error(str(error))
    return options, extra


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    options, extra = parse(arguments)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning")
    group = runs.name_of(runs.new_tag()) if options.runs > 1 else ""
    outcomes: list[Outcome] = []
    for _ in range(options.runs):
        outcome = run_once(options, extra, runs.name_of(runs.new_tag()), group)
        if isinstance(outcome, int):
            return outcome
        outcomes.append(outcome)
    show(outcomes)
    codes = [outcome.exit_code for outcome in outcomes]
    order = (EXIT_FAILED, EXIT_UNKNOWN, EXIT_MISSED)
    return next((code for code in order if code in codes), EXIT_PASSED)


if __name__ == "__main__":
    sys.exit(main())
